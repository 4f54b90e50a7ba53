//! Values of one core, by type: how a service finds its own per-core part. In the simulator every
//! core has its own although they share a thread.

use crate::core::with_core;
use std::any::{Any, TypeId};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

#[derive(Default)]
pub(crate) struct Locals {
    values: RefCell<BTreeMap<TypeId, Rc<dyn Any>>>,
}

impl Locals {
    pub(crate) fn clear(&self) {
        let values = std::mem::take(&mut *self.values.borrow_mut());
        drop(values);
    }
}

/// Sets this core's value of the type; the former one is returned.
pub fn set_local<T: 'static>(value: Rc<T>) -> Option<Rc<T>> {
    let before = with_core(|core| {
        core.locals
            .values
            .borrow_mut()
            .insert(TypeId::of::<T>(), value)
    });
    before.and_then(|value| value.downcast().ok())
}

/// This core's value of the type.
pub fn local<T: 'static>() -> Option<Rc<T>> {
    let value = with_core(|core| core.locals.values.borrow().get(&TypeId::of::<T>()).cloned());
    value.and_then(|value| value.downcast().ok())
}

/// Takes this core's value of the type away.
pub fn take_local<T: 'static>() -> Option<Rc<T>> {
    let value = with_core(|core| core.locals.values.borrow_mut().remove(&TypeId::of::<T>()));
    value.and_then(|value| value.downcast().ok())
}
