//! A few helper threads for what cannot be done without blocking (directory listings, `syncfs`,
//! host-name look-ups): work goes there and its answer comes back as a future.
