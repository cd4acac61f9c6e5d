//! Tests of the watchdog in virtual time.
