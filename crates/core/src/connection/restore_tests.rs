//! A connection that takes the place of one that died.
