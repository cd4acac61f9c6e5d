//! The demo's output: aligned lines, in colour only on a terminal.

use anyhow::{Error, Result};
use std::io::{IsTerminal, Write};
use std::time::Duration;

/// Output of the demo, with or without colour.
pub(super) struct Screen {
    out: Box<dyn Write + Send>,
    colour: bool,
}

const GREEN: &str = "32";
const RED: &str = "31";
const BOLD: &str = "1";
const DIM: &str = "2";

impl Screen {
    /// Standard output; in colour when it is a terminal and `NO_COLOR` is not set.
    pub(super) fn of_stdout() -> Self {
        let stdout = std::io::stdout();
        let colour = stdout.is_terminal() && std::env::var_os("NO_COLOR").is_none();
        Self {
            out: Box::new(stdout),
            colour,
        }
    }

    /// Shows a step that succeeded: its name, its duration and a detail.
    pub(super) fn done(&mut self, what: &str, took: Duration, detail: &str) -> Result<()> {
        let mark = self.paint(GREEN, "✓");
        let took = self.paint(DIM, &format!("{:>9}", milliseconds(took)));
        self.line(&format!("  {mark} {what:<28}{took}   {detail}"))
    }

    /// Shows the step that failed.
    pub(super) fn failed(&mut self, error: &Error) -> Result<()> {
        let mark = self.paint(RED, "✗");
        self.line(&format!("  {mark} {error:#}"))
    }

    pub(super) fn heading(&mut self, title: &str) -> Result<()> {
        let title = self.paint(BOLD, title);
        self.line(&format!("\n{title}"))
    }

    pub(super) fn line(&mut self, text: &str) -> Result<()> {
        self.plain(&format!("{}\n", text.trim_end()))
    }

    pub(super) fn plain(&mut self, text: &str) -> Result<()> {
        self.out.write_all(text.as_bytes())?;
        Ok(self.out.flush()?)
    }

    pub(super) fn dim(&self, text: &str) -> String {
        self.paint(DIM, text)
    }

    fn paint(&self, colour: &str, text: &str) -> String {
        match self.colour {
            true => format!("\x1b[{colour}m{text}\x1b[0m"),
            false => text.to_owned(),
        }
    }
}

/// Formats two decimals below ten milliseconds, where the gateway's own work shows; one above.
fn milliseconds(took: Duration) -> String {
    let ms = took.as_secs_f64() * 1000.0;
    match ms < 10.0 {
        true => format!("{ms:.2} ms"),
        false => format!("{ms:.1} ms"),
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use std::sync::{Arc, Mutex};

    /// A screen whose output a test reads afterwards.
    #[derive(Clone, Default)]
    pub(crate) struct Recorder(Arc<Mutex<Vec<u8>>>);

    impl Write for Recorder {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().expect("one writer").extend(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    impl Recorder {
        pub(crate) fn screen(&self, colour: bool) -> Screen {
            let out = Box::new(self.clone());
            Screen { out, colour }
        }

        pub(crate) fn text(&self) -> String {
            String::from_utf8(self.0.lock().expect("one writer").clone()).expect("text")
        }
    }

    #[test]
    fn steps_are_aligned_and_without_colour_off_a_terminal() {
        let recorder = Recorder::default();
        let mut screen = recorder.screen(false);
        screen
            .done("one", Duration::from_micros(1234), "detail")
            .expect("written");
        screen
            .done("something longer", Duration::from_secs(2), "")
            .expect("written");
        let expected = "  ✓ one                           1.23 ms   detail\n\
                        \x20 ✓ something longer            2000.0 ms\n";
        assert_eq!(recorder.text(), expected);
    }

    #[test]
    fn colour_surrounds_the_text() {
        let recorder = Recorder::default();
        recorder.screen(true).heading("Title").expect("written");
        assert_eq!(recorder.text(), "\n\x1b[1mTitle\x1b[0m\n");
    }
}
