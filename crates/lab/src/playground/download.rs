//! A download of a known pattern, every byte of which is checked as it comes.

use super::Playground;
use super::traffic::{Families, Stream};
use crate::web;
use anyhow::{Result, bail, ensure};
use std::io::Read;
use std::process::ExitStatus;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// How far it has come.
#[derive(Clone, Copy, Debug)]
pub struct Progress {
    /// Bytes that have come.
    pub bytes: u64,
    /// The first that was not what it should be.
    pub wrong_at: Option<u64>,
    /// The longest time without a byte, after the first and up to the last.
    pub longest_pause: Duration,
    last: Option<Instant>,
    ended: bool,
}

/// A running curl that fetches `/bytes/…` or `/slow/…`. Dropping it ends the download.
pub struct Download {
    running: Stream,
    progress: Arc<Mutex<Progress>>,
}

impl Download {
    /// Starts it at the client; curl gives up after `limit`.
    ///
    /// # Errors
    /// curl cannot be started.
    pub fn start(
        playground: &Playground,
        url: &str,
        families: Families,
        limit: Duration,
    ) -> Result<Self> {
        let (running, output) = Stream::start(playground, url, families, limit)?;
        let progress = Arc::new(Mutex::new(Progress {
            bytes: 0,
            wrong_at: None,
            longest_pause: Duration::ZERO,
            last: None,
            ended: false,
        }));
        let noted = Arc::clone(&progress);
        std::thread::spawn(move || check(output, &noted));
        Ok(Self { running, progress })
    }

    /// How far it has come.
    #[must_use]
    pub fn progress(&self) -> Progress {
        *lock(&self.progress)
    }

    /// Waits until `more` further bytes have come, all of them right.
    ///
    /// # Errors
    /// They did not come within `limit`, one was wrong, it ended, or the wait was called off.
    pub fn wait_more(&self, playground: &Playground, more: u64, limit: Duration) -> Result<()> {
        let target = self.progress().bytes + more;
        let what = format!("{more} more bytes of a download");
        playground.interrupt().until_ok(&what, limit, || {
            let progress = self.progress();
            ensure_right(&progress)?;
            if progress.bytes >= target {
                return Ok(Some(()));
            }
            match progress.ended {
                true => bail!("the download ended after {} bytes", progress.bytes),
                false => Ok(None),
            }
        })
    }

    /// Waits until it has come to its end with exactly `bytes` bytes, all of them right.
    ///
    /// # Errors
    /// It goes on for `limit`, failed, came short or was wrong, or the wait was called off.
    pub fn wait_whole(
        &mut self,
        playground: &Playground,
        bytes: u64,
        limit: Duration,
    ) -> Result<Progress> {
        let status = self.wait_end(playground, limit)?;
        let progress = self.progress();
        ensure_right(&progress)?;
        let came = progress.bytes;
        ensure!(
            status.success(),
            "curl ended with {status} after {came} bytes"
        );
        ensure!(came == bytes, "{came} bytes came instead of {bytes}");
        Ok(progress)
    }

    fn wait_end(&mut self, playground: &Playground, limit: Duration) -> Result<ExitStatus> {
        let interrupt = playground.interrupt();
        interrupt.until_ok("the end of a download", limit, || {
            // curl may be gone before its last bytes have been looked at.
            match self.progress().ended {
                true => self.running.ended(),
                false => Ok(None),
            }
        })
    }
}

fn ensure_right(progress: &Progress) -> Result<()> {
    match progress.wrong_at {
        Some(at) => bail!("byte {at} of a download was wrong"),
        None => Ok(()),
    }
}

/// Reads to the end and compares every byte with the pattern.
fn check(mut output: impl Read, noted: &Mutex<Progress>) {
    let mut expected = web::pattern();
    let mut chunk = vec![0; 64 * 1024];
    loop {
        let length = output.read(&mut chunk).unwrap_or(0);
        let mut progress = lock(noted);
        if length == 0 {
            progress.ended = true;
            return;
        }
        let wrong = chunk[..length]
            .iter()
            .zip(expected.by_ref())
            .position(|(is, should)| *is != should);
        if let (Some(at), None) = (wrong, progress.wrong_at) {
            progress.wrong_at = u64::try_from(at).ok().map(|at| progress.bytes + at);
        }
        let now = Instant::now();
        if let Some(last) = progress.last.replace(now) {
            progress.longest_pause = progress.longest_pause.max(now.duration_since(last));
        }
        progress.bytes += length as u64;
    }
}

fn lock(progress: &Mutex<Progress>) -> MutexGuard<'_, Progress> {
    progress.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checked(bytes: &[u8]) -> Progress {
        let progress = Mutex::new(Progress {
            bytes: 0,
            wrong_at: None,
            longest_pause: Duration::ZERO,
            last: None,
            ended: false,
        });
        check(bytes, &progress);
        *lock(&progress)
    }

    #[test]
    fn the_first_wrong_byte_is_found() {
        let mut bytes: Vec<u8> = web::pattern().take(200_000).collect();
        let right = checked(&bytes);
        assert_eq!((right.bytes, right.wrong_at), (200_000, None));
        for at in [150_000, 70_000] {
            bytes[at] ^= 1;
            assert_eq!(checked(&bytes).wrong_at, Some(at as u64));
        }
        // A byte that is missing shifts all that follow.
        bytes.remove(1000);
        assert_eq!(checked(&bytes).wrong_at, Some(1000));
    }
}
