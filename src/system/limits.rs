//! The limits of the kernel on this process.

use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// Raises the limit of open files to the hard limit, and returns it. The usual soft limit of 1024
/// is for programs that call `select(2)`, and each pending DNS query holds a socket for each family
/// and server.
pub fn raise_open_files() -> nix::Result<u64> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    if soft < hard {
        setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?;
    }
    Ok(hard)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_soft_limit_becomes_the_hard_one() {
        let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).expect("there is one");
        let lower = hard.min(512);
        setrlimit(Resource::RLIMIT_NOFILE, lower, hard).expect("lowering is allowed");
        assert_eq!(raise_open_files(), Ok(hard));
        assert_eq!(getrlimit(Resource::RLIMIT_NOFILE), Ok((hard, hard)));
    }
}
