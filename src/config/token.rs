//! Where the portal's token comes from. Exactly one source counts, the first of
//!
//! 1. `POSTERN__PORTAL__TOKEN`,
//! 2. the file named by `portal.token_file` (whose own override is `POSTERN__PORTAL__TOKEN_FILE`),
//! 3. `$CREDENTIALS_DIRECTORY/POSTERN_TOKEN`, as passed by systemd's `LoadCredential=`.
//!
//! A source that is there but empty or unreadable is an error; the next one is not tried, because a
//! gateway that quietly joins with another token is worse than one that does not start. Whitespace
//! is removed everywhere in the token (docs/protocol.md 1.2).

use super::environment::{CREDENTIALS_VARIABLE, Environment};
use super::layers::Merged;
use super::problem::{Place, Problem, unreadable};
use super::secret::Secret;
use std::ffi::OsStr;
use std::fs::File;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use zeroize::Zeroizing;

/// A token and its origin, or the one problem with it.
pub(super) fn resolve(
    merged: &Merged,
    environment: &Environment,
) -> Result<(Secret, String), Problem> {
    let (place, name, token, remedy) = if let Some(bytes) = environment.get(VARIABLE) {
        let place = Place::Environment(VARIABLE.to_owned());
        (place, String::new(), clean(bytes), UNSET)
    } else if let Some(path) = merged.get::<PathBuf>("portal.token_file") {
        let name = format!("portal.token_file {path:?} ");
        (merged.place("portal.token_file"), name, read(&path), PUT)
    } else if let Some(path) = credential(environment) {
        let place = Place::Credential(CREDENTIALS_VARIABLE);
        (place, format!("{} ", path.display()), read(&path), CHECK)
    } else {
        return Err(Problem::new(Place::Whole(merged.file.clone()), NO_TOKEN));
    };
    let origin = place.origin();
    let problem = |fault| Problem::new(place, format!("{name}{fault}; {remedy}"));
    token.map(|token| (token, origin)).map_err(problem)
}

fn credential(environment: &Environment) -> Option<PathBuf> {
    let directory = environment.get(CREDENTIALS_VARIABLE)?;
    let path = Path::new(OsStr::from_bytes(directory)).join("POSTERN_TOKEN");
    path.exists().then_some(path)
}

fn read(path: &Path) -> Result<Secret, String> {
    let metadata = path.metadata().map_err(|error| unreadable(&error))?;
    if !metadata.is_file() {
        return Err("is not a regular file".to_owned());
    }
    let file = File::open(path).map_err(|error| unreadable(&error))?;
    // With its full capacity at once: a buffer that grows leaves copies of the secret behind.
    let mut bytes = Zeroizing::new(Vec::with_capacity(TOKEN_BYTES_MAX + 1));
    file.take(TOKEN_BYTES_MAX as u64 + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| unreadable(&error))?;
    clean(&bytes)
}

/// Removes whitespace and checks that the rest can stand in an HTTP header.
fn clean(bytes: &[u8]) -> Result<Secret, String> {
    if bytes.len() > TOKEN_BYTES_MAX {
        return Err(format!("is longer than {TOKEN_BYTES_MAX} bytes"));
    }
    let mut token = Zeroizing::new(String::with_capacity(bytes.len()));
    for byte in bytes.iter().filter(|byte| !byte.is_ascii_whitespace()) {
        if !byte.is_ascii_graphic() {
            return Err("holds characters that no token has".to_owned());
        }
        token.push(char::from(*byte));
    }
    if token.is_empty() {
        return Err("is empty".to_owned());
    }
    Ok(Secret::new(token))
}

/// The override of `portal.token`.
const VARIABLE: &str = "POSTERN__PORTAL__TOKEN";
/// Real tokens have some 200 bytes; HTTP servers take headers of 8 KiB.
const TOKEN_BYTES_MAX: usize = 8192;
const UNSET: &str = "set it to the token, or unset it";
const CHECK: &str = "check LoadCredential= of the unit";
const PUT: &str =
    "put the token that the portal issued for this gateway there, readable for the gateway's user";
const NO_TOKEN: &str = "there is no token: name a file with token_file = \"/etc/postern/token\" under [portal], or set \
     POSTERN__PORTAL__TOKEN, or pass it by systemd with LoadCredential=POSTERN_TOKEN:/etc/postern/token";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whitespace_is_removed_everywhere() {
        let token = clean(b" .SFMy\nNTY.g2gD \r\n").expect("a token");
        assert_eq!(token.expose(), ".SFMyNTY.g2gD");
    }

    #[test]
    fn what_cannot_stand_in_a_header_is_refused_without_being_shown() {
        for bytes in [
            b"abc\x00def".as_slice(),
            "t\u{f6}ken".as_bytes(),
            b"\xff\xfe",
        ] {
            let fault = clean(bytes).expect_err("not a token");
            assert_eq!(fault, "holds characters that no token has");
        }
        assert_eq!(clean(b" \n\t").expect_err("nothing left"), "is empty");
        let long = vec![b'x'; TOKEN_BYTES_MAX + 1];
        assert!(clean(&long).is_err());
    }
}
