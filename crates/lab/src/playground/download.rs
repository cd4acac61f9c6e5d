//! Downloads at the client that are read as they come: a known pattern, of which every byte is
//! checked, and lines at a fixed interval.

use super::Playground;
use super::traffic::{Families, GRACE, curl, url};
use crate::web;
use anyhow::{Context, Result, bail, ensure};
use std::io::{BufRead, BufReader, Read};
use std::net::IpAddr;
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdout, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// A running curl whose output another thread turns into `T`. Dropping it ends the download.
struct Stream<T> {
    curl: Child,
    progress: Arc<Mutex<T>>,
}

impl<T: Default + Send + 'static> Stream<T> {
    /// Fetches a URL at the client; curl ends after `limit`.
    fn start(
        playground: &Playground,
        url: &str,
        families: Families,
        limit: Duration,
        read: impl FnOnce(ChildStdout, &Mutex<T>) + Send + 'static,
    ) -> Result<Self> {
        let mut curl = curl(playground, super::Role::Client, limit)
            .args(families.option())
            .args(["-N", url])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()
            .context("cannot start curl")?;
        let output = curl.stdout.take().context("curl has an output")?;
        let progress = Arc::new(Mutex::new(T::default()));
        let shared = Arc::clone(&progress);
        std::thread::spawn(move || read(output, &shared));
        Ok(Self { curl, progress })
    }
}

impl<T> Drop for Stream<T> {
    fn drop(&mut self) {
        // Both fail only for a curl that has ended.
        let _gone = self.curl.kill();
        let _reaped = self.curl.wait();
    }
}

fn lock<T>(progress: &Mutex<T>) -> MutexGuard<'_, T> {
    progress.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Progress of a download of the pattern.
#[derive(Clone, Copy, Debug, Default)]
pub struct Progress {
    /// Number of received bytes.
    pub bytes: u64,
    /// Offset of the first wrong byte.
    pub wrong_at: Option<u64>,
    /// The longest time between two reads.
    pub longest_pause: Duration,
    last: Option<Instant>,
    ended: bool,
}

/// A download of `/bytes/…` or `/slow/…`, of which every byte is compared with the pattern.
pub struct Download(Stream<Progress>);

impl Download {
    /// Starts the download at the client; curl ends after `limit`.
    pub fn start(
        playground: &Playground,
        url: &str,
        families: Families,
        limit: Duration,
    ) -> Result<Self> {
        Stream::start(playground, url, families, limit, check).map(Self)
    }

    pub fn progress(&self) -> Progress {
        *lock(&self.0.progress)
    }

    fn checked(&self) -> Result<Progress> {
        let progress = self.progress();
        match progress.wrong_at {
            Some(at) => bail!("byte {at} of a download was wrong"),
            None => Ok(progress),
        }
    }

    /// Waits until `more` further bytes have come, all of them right.
    pub fn wait_more(&self, playground: &Playground, more: u64, limit: Duration) -> Result<()> {
        let target = self.progress().bytes + more;
        let what = format!("{more} more bytes of a download");
        playground.interrupt().until_ok(&what, limit, || {
            let progress = self.checked()?;
            if progress.bytes >= target {
                return Ok(Some(()));
            }
            match progress.ended {
                true => bail!("the download ended after {} bytes", progress.bytes),
                false => Ok(None),
            }
        })
    }

    /// Waits for the end of the download, which must have exactly `bytes` bytes, all of them right.
    pub fn wait_whole(
        &mut self,
        playground: &Playground,
        bytes: u64,
        limit: Duration,
    ) -> Result<Progress> {
        let interrupt = playground.interrupt();
        let status = interrupt.until_ok("the end of a download", limit, || {
            // curl may end before the other thread has checked its last bytes.
            match self.progress().ended {
                true => Ok(self.0.curl.try_wait()?),
                false => Ok(None),
            }
        })?;
        let progress = self.checked()?;
        let came = progress.bytes;
        ensure!(
            status.success(),
            "curl ended with {status} after {came} bytes"
        );
        ensure!(came == bytes, "{came} bytes came instead of {bytes}");
        Ok(progress)
    }
}

/// Reads to the end and compares every byte with the pattern.
fn check(mut output: impl Read, shared: &Mutex<Progress>) {
    let mut expected = web::pattern();
    let mut chunk = vec![0; 64 * 1024];
    loop {
        let length = output.read(&mut chunk).unwrap_or(0);
        let mut progress = lock(shared);
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

#[derive(Default)]
struct Lines {
    count: u64,
    last: Option<Instant>,
    ended: bool,
}

/// A download of `/drip/<seconds>`: a short line every 20 ms.
pub struct LineDownload {
    stream: Stream<Lines>,
    started: Instant,
}

impl LineDownload {
    /// Starts a download of `seconds` at the client.
    pub fn start(playground: &Playground, address: IpAddr, seconds: u32) -> Result<Self> {
        let limit = Duration::from_secs(seconds.into()) + GRACE;
        let url = url(address, 80, &format!("/drip/{seconds}"));
        let read = |output, shared: &Mutex<Lines>| {
            for _line in BufReader::new(output).lines().map_while(Result::ok) {
                let mut lines = lock(shared);
                lines.count += 1;
                lines.last = Some(Instant::now());
            }
            lock(shared).ended = true;
        };
        Ok(Self {
            stream: Stream::start(playground, &url, Families::Any, limit, read)?,
            started: Instant::now(),
        })
    }

    /// Number of received lines.
    pub fn lines(&self) -> u64 {
        lock(&self.stream.progress).count
    }

    /// Waits until `more` further lines have come.
    pub fn wait_more(&self, playground: &Playground, more: u64, limit: Duration) -> Result<()> {
        let target = self.lines() + more;
        let what = format!("{more} more lines of a download");
        playground.interrupt().until_ok(&what, limit, || {
            let lines = lock(&self.stream.progress);
            if lines.count >= target {
                return Ok(Some(()));
            }
            match lines.ended {
                true => bail!("the download ended after {} lines", lines.count),
                false => Ok(None),
            }
        })
    }

    /// Waits until nothing has come for `quiet`, and returns the arrival time of the last line.
    pub fn wait_silence(
        &self,
        playground: &Playground,
        quiet: Duration,
        limit: Duration,
    ) -> Result<Instant> {
        let interrupt = playground.interrupt();
        interrupt.until("a download to fall silent", limit, || {
            let last = lock(&self.stream.progress).last.unwrap_or(self.started);
            (last.elapsed() >= quiet).then_some(last)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checked(bytes: &[u8]) -> Progress {
        let progress = Mutex::default();
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
        // A missing byte shifts all that follow.
        bytes.remove(1000);
        assert_eq!(checked(&bytes).wrong_at, Some(1000));
    }
}
