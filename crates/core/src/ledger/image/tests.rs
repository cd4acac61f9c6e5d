//! Tests of the saved state.
