//! What is rare in a submit, after its slot is Submitted. A function for each, and by an ABI that cannot unwind: so the
//! hot functions just jump here, and need keep nothing.

use core::ffi::c_int;
use core::hint::black_box;

use shmuring::backend::{Backend, Rest, SlotRef};

use crate::fill::reference;

/// What a call gives when its request is submitted.
pub(crate) trait Given {
    fn of(request: SlotRef) -> Self;
}

impl Given for i64 {
    #[inline(always)]
    fn of(request: SlotRef) -> Self {
        // Or the compiler finds that a caller has it already, and keeps it there in place of a jump.
        black_box(reference(request))
    }
}

impl Given for c_int {
    #[inline(always)]
    fn of(_: SlotRef) -> Self {
        0
    }
}

/// Does the rest of a submit.
#[inline(always)]
pub(crate) fn finish<T: Given>(backend: &mut Backend<'static>, request: SlotRef, rest: Rest) -> T {
    match rest {
        Rest::Push => push(backend, request),
        Rest::Ticket(ticket) => push_with(backend, request, ticket),
        Rest::Ring => ring(backend, request),
        Rest::Sample => sample(backend, request),
    }
}

#[cold]
#[inline(never)]
extern "C" fn push<T: Given>(backend: &mut Backend<'static>, request: SlotRef) -> T {
    backend.submit_rest(request, Rest::Push);
    T::of(request)
}

#[cold]
#[inline(never)]
extern "C" fn push_with<T: Given>(backend: &mut Backend<'static>, request: SlotRef, ticket: u64) -> T {
    backend.submit_rest(request, Rest::Ticket(ticket));
    T::of(request)
}

#[cold]
#[inline(never)]
extern "C" fn ring<T: Given>(backend: &mut Backend<'static>, request: SlotRef) -> T {
    backend.submit_rest(request, Rest::Ring);
    T::of(request)
}

#[cold]
#[inline(never)]
extern "C" fn sample<T: Given>(backend: &mut Backend<'static>, request: SlotRef) -> T {
    backend.submit_rest(request, Rest::Sample);
    T::of(request)
}
