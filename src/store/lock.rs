//! One working process per data folder.

use std::{
    fs::{File, OpenOptions, TryLockError},
    io::{Read, Seek, Write},
    path::Path,
};

use super::{StoreError, private_folder};

/// Held while a process works on a data folder; the operating system lets go of it even when it is killed.
#[derive(Debug)]
pub struct Lock {
    file: File,
}

impl Lock {
    /// Takes `<data_dir>/lock` and writes this process's id into it.
    ///
    /// # Errors
    ///
    /// [`StoreError::Locked`] names the process that has it.
    pub fn take(data_dir: &Path) -> Result<Self, StoreError> {
        let folder = |source| StoreError::Folder { path: data_dir.to_owned(), source };
        private_folder(data_dir).map_err(folder)?;
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(data_dir.join("lock"))
            .map_err(folder)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut holder = String::new();
                let _ = file.read_to_string(&mut holder);
                let holder = holder.trim();
                return Err(StoreError::Locked {
                    path: data_dir.to_owned(),
                    holder: if holder.is_empty() { "unknown".to_owned() } else { holder.to_owned() },
                });
            }
            Err(TryLockError::Error(source)) => return Err(folder(source)),
        }
        file.set_len(0).and_then(|()| file.rewind()).map_err(folder)?;
        writeln!(file, "{}", std::process::id()).map_err(folder)?;
        Ok(Self { file })
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        // Closing would not do while a child process that is just being started shares the open file.
        let _ = self.file.unlock();
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn the_second_one_is_told_who_holds_it() {
        let dir = tempfile::tempdir().unwrap();
        let held = Lock::take(dir.path()).unwrap();
        let told = Lock::take(dir.path()).unwrap_err().to_string();
        assert!(told.contains(&std::process::id().to_string()), "{told}");
        drop(held);
        Lock::take(dir.path()).unwrap();
    }
}
