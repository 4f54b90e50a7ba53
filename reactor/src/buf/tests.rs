//! Buffers and their pool, also across threads.

use super::*;

#[test]
fn slices_share_and_the_last_one_frees() {
    let whole = Buf::copy_of(&[1, 2, 3, 4, 5]).freeze();
    let part = whole.slice(1..4);
    drop(whole);
    assert_eq!(&*part, &[2, 3, 4]);
    assert_eq!(&*part.slice(2..3), &[4]);
}

#[test]
fn a_shared_buffer_does_not_become_writable() {
    let whole = Buf::copy_of(&[1, 2, 3]).freeze();
    let other = whole.clone();
    let whole = whole.try_into_buf().expect_err("shared");
    drop(other);
    assert!(whole.try_into_buf().is_ok());
    assert!(SharedBuf::zeros(8).try_into_buf().is_err());
    assert!(SharedBuf::from_vec(vec![1, 2]).try_into_buf().is_err());
}

#[test]
fn buffers_are_aligned() {
    assert!(Buf::alloc(17).freeze().is_aligned());
    assert!(SharedBuf::zeros(512).is_aligned());
}

/// Everything that the pool can give for requests of `len` bytes.
fn take_all(pool: &Pool, len: usize) -> Vec<Buf> {
    std::iter::from_fn(|| pool.take(len)).collect()
}

#[test]
fn a_used_up_pool_gives_none_and_no_two_buffers_overlap() {
    let pool = Pool::new(CoreId(0), 8 << 20);
    let mut all = Vec::new();
    for len in CLASS_SIZES {
        all.extend(take_all(&pool, len));
    }
    assert_eq!(all.len(), pool.places.len());
    assert_eq!(pool.shared.free.load(Ordering::Relaxed), 0);
    let (start, len) = pool.region();
    let mut next = start as usize;
    all.sort_by_key(|buf| buf.as_ptr());
    for buf in &all {
        assert!(buf.as_ptr() as usize >= next, "overlap");
        assert_eq!(
            buf.offset_in(&pool),
            Some(buf.as_ptr() as usize - start as usize)
        );
        next = buf.as_ptr() as usize + buf.capacity();
    }
    assert!(next <= start as usize + len);
    assert_eq!(Buf::alloc(4096).offset_in(&pool), None);
}

#[test]
fn small_requests_do_not_take_the_large_blocks() {
    let pool = Pool::new(CoreId(0), 8 << 20);
    drop(take_all(&pool, 1));
    let small = take_all(&pool, 1);
    assert!(small.iter().all(|buf| buf.capacity() <= CLASS_SIZES[1]));
    assert!(pool.take(CLASS_SIZES[3]).is_some());
}

#[test]
fn buffers_dropped_on_other_threads_come_home_also_after_the_pool_is_gone() {
    let pool = Pool::new(CoreId(0), 4 << 20);
    for _ in 0..10 {
        let mut all = take_all(&pool, 4096);
        let count = all.len();
        assert!(count > 16);
        for (number, buf) in all.iter_mut().enumerate() {
            buf.fill(number as u8);
        }
        let shared: Vec<SharedBuf> = all.into_iter().map(Buf::freeze).collect();
        let clones = shared.clone();
        let threads = [shared, clones].map(|part| {
            std::thread::spawn(move || {
                for (number, buf) in part.into_iter().enumerate() {
                    assert!(buf.iter().all(|byte| *byte == number as u8));
                }
            })
        });
        for thread in threads {
            thread.join().unwrap();
        }
        assert_eq!(take_all(&pool, 4096).len(), count);
    }
    let last = pool.take(4096).unwrap();
    drop(pool);
    std::thread::spawn(move || drop(last)).join().unwrap();
}
