//! The first of two readings: what is bad in the input, and how much it is.

use anyhow::Result;
use tokio::task::spawn_blocking;

use super::{
    bad::Bad,
    entry::{Entries, Reading},
    input::{self, Input},
    progress::Progress,
};

/// Items between two updates of the bar.
const STEP: u64 = 1000;

/// What a reading has found.
#[derive(Debug, Default)]
pub(super) struct Checked {
    pub(super) bad: Bad,
    /// How many bytes the input has; `None`: not all of it can be read twice.
    pub(super) bytes: Option<u64>,
}

/// Reads what can be read twice.
pub(super) async fn check(reading: &Reading, inputs: &[Input]) -> Result<Checked> {
    let lasting: Vec<Input> = inputs.iter().filter(|input| input.is_lasting()).cloned().collect();
    if lasting.is_empty() {
        return Ok(Checked::default());
    }
    let is_all = lasting.len() == inputs.len();
    let progress = Progress::new("checking", input::size(&lasting));
    let reading = Reading { is_check: true, ..reading.clone() };
    let (bad, bytes) = spawn_blocking(move || read(reading.entries(lasting), progress)).await??;
    Ok(Checked { bad, bytes: is_all.then_some(bytes) })
}

fn read(entries: Entries, mut progress: Progress) -> Result<(Bad, u64)> {
    let mut bad = Bad::default();
    let (mut unshown, mut bytes_read) = (0, 0);
    for entry in entries {
        let entry = entry?;
        if let Err(problem) = &entry.item {
            bad.add(&entry.place, problem);
        }
        (unshown, bytes_read) = (unshown + 1, bytes_read + entry.bytes);
        if unshown == STEP {
            progress.advance(unshown, bytes_read);
            unshown = 0;
        }
    }
    Ok((bad, bytes_read))
}

#[cfg(test)]
mod tests {
    use super::*;
    use gatefeed_core::envelope::Format;
    use std::{fs, path::Path};

    fn reading(as_files: bool) -> Reading {
        let format = Format { partition: "p".into(), gate: 0, is_envelope: false };
        Reading { format, bytes_max: 10, as_files, is_check: false }
    }

    async fn checked(as_files: bool, inputs: &[Input]) -> (u64, Option<u64>) {
        let checked = check(&reading(as_files), inputs).await.unwrap();
        (checked.bad.number(), checked.bytes)
    }

    #[tokio::test]
    async fn a_folder_has_a_size_once_it_is_read_and_stdin_has_none() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("a"), "12345").unwrap();
        fs::write(dir.path().join("b"), "{1}\n12\n").unwrap();
        let (folder, b) = (Input::Folder(dir.path().to_owned()), dir.path().join("b"));
        assert_eq!(checked(true, std::slice::from_ref(&folder)).await, (0, Some(12)));
        let pipe = Input::Pipe(Path::new("/nowhere").to_owned());
        assert_eq!(checked(true, &[folder, pipe]).await, (0, None));
        let lines = Input::File(b, 7);
        assert_eq!(checked(false, std::slice::from_ref(&lines)).await, (1, Some(7)));
        assert_eq!(checked(false, &[lines, Input::Stdin]).await, (1, None));
        assert_eq!(checked(false, &[Input::Stdin]).await, (0, None));
    }
}
