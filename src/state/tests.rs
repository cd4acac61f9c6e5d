//! Tests of the state file on a memory file system.
