//! x
pub mod clock;
pub mod derive;
