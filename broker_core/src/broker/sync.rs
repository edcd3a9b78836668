//! The locks that models of this room's concurrency replace: `tests/concurrency.rs` compiles these rooms with its own.

pub use parking_lot::{Condvar, Mutex};
