//! What the demo writes: aligned lines, in colour only where somebody looks at them.

use anyhow::{Error, Result};
use std::io::{IsTerminal, Write};
use std::time::Duration;

/// Where the demo writes to.
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

    /// A step that went well: what, how long, and what else there is to say.
    pub(super) fn done(&mut self, what: &str, took: Duration, told: &str) -> Result<()> {
        let mark = self.paint(GREEN, "✓");
        let took = self.paint(DIM, &format!("{:>9}", milliseconds(took)));
        self.line(&format!("  {mark} {what:<28}{took}   {told}"))
    }

    /// The step that went wrong.
    pub(super) fn failed(&mut self, error: &Error) -> Result<()> {
        let mark = self.paint(RED, "✗");
        self.line(&format!("  {mark} {error:#}"))
    }

    /// The title of a part.
    pub(super) fn heading(&mut self, title: &str) -> Result<()> {
        let title = self.paint(BOLD, title);
        self.line(&format!("\n{title}"))
    }

    /// Text as it is, with a line end.
    pub(super) fn line(&mut self, text: &str) -> Result<()> {
        self.plain(&format!("{}\n", text.trim_end()))
    }

    /// Text as it is.
    pub(super) fn plain(&mut self, text: &str) -> Result<()> {
        self.out.write_all(text.as_bytes())?;
        Ok(self.out.flush()?)
    }

    /// Text that stands back.
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

/// Two decimals below ten milliseconds, where the gateway's own work shows; one above.
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

    /// A screen that is read afterwards.
    #[derive(Clone, Default)]
    pub(crate) struct Paper(Arc<Mutex<Vec<u8>>>);

    impl Write for Paper {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().expect("one writer").extend(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    impl Paper {
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
        let paper = Paper::default();
        let mut screen = paper.screen(false);
        screen
            .done("one", Duration::from_micros(1234), "told")
            .expect("written");
        screen
            .done("something longer", Duration::from_secs(2), "")
            .expect("written");
        let expected = "  ✓ one                           1.23 ms   told\n\
                        \x20 ✓ something longer            2000.0 ms\n";
        assert_eq!(paper.text(), expected);
    }

    #[test]
    fn colour_goes_round_the_words() {
        let paper = Paper::default();
        paper.screen(true).heading("Title").expect("written");
        assert_eq!(paper.text(), "\n\x1b[1mTitle\x1b[0m\n");
    }
}
