//! Stub.
use super::config::NetConfig;
#[derive(Clone)]
pub struct SimNet {}
impl SimNet {
    pub(super) fn new(_c: NetConfig) -> SimNet {
        SimNet {}
    }
}
