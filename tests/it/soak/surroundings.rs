//! What a process stands on, and what can happen to it: a disk of its own that fills, freezes, turns
//! read-only or is forbidden, and a clock that is set.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use rustix::fs::{FallocateFlags, fallocate, statvfs};

use crate::disk::{has_nobody, is_root, set_mode, set_usable};

/// A disk of half a gibibyte where this user may mount one; else a folder that cannot fail.
pub struct Disk {
    folder: PathBuf,
    mounted: bool,
    read_only: bool,
    forbidden: bool,
    full: bool,
    clock: PathBuf,
}

/// Runs a program; true where it went well.
fn ran(program: &str, arguments: &[&str], path: &Path) -> bool {
    let mut command = Command::new(program);
    let command = command.args(arguments).arg(path).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

impl Disk {
    /// A disk at `home/disk`, with the folders `spool` and `data` on it, and a clock at `home/clock`.
    pub fn mount(home: &Path) -> Self {
        let (folder, image, clock) = (home.join("disk"), home.join("image"), home.join("clock"));
        set_mode(home, 0o755);
        fs::create_dir(&folder).expect("a folder");
        fs::File::create(&image).and_then(|file| file.set_len(512 << 20)).expect("an image");
        let mounted = is_root()
            && ran("mkfs.ext4", &["-q", "-m", "0", "-E", "lazy_itable_init=0"], &image)
            && ran("mount", &["-o", "loop", &image.display().to_string()], &folder);
        let disk = Self { folder, mounted, read_only: false, forbidden: false, full: false, clock };
        disk.set_clock(0);
        for name in ["spool", "data"] {
            fs::create_dir(disk.folder.join(name)).expect("a folder");
            set_usable(&disk.folder.join(name), true);
        }
        disk
    }

    /// True where the process is to run as a user who can be forbidden something.
    pub fn has_nobody(&self) -> bool {
        is_root() && has_nobody(&self.folder)
    }

    /// Where it is.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// True where it is a disk of its own.
    pub fn is_mounted(&self) -> bool {
        self.mounted
    }

    /// True where nothing keeps a process from writing.
    pub fn is_usable(&self) -> bool {
        !(self.read_only || self.forbidden)
    }

    /// Takes all room there is.
    pub fn fill(&mut self) {
        if !self.mounted || self.read_only {
            return;
        }
        let Ok(ballast) = fs::File::create(self.folder.join("ballast")) else { return };
        self.full = true;
        let room = statvfs(&self.folder).map_or(0, |disk| disk.f_bavail * disk.f_frsize);
        // What is left of it goes block by block.
        let mut at = room.saturating_sub(1 << 20);
        let _ = fallocate(&ballast, FallocateFlags::empty(), 0, at);
        while fallocate(&ballast, FallocateFlags::empty(), at, 4096).is_ok() {
            at += 4096;
        }
    }

    /// Gives the room back.
    pub fn empty(&mut self) {
        if self.full && !self.read_only {
            drop(fs::remove_file(self.folder.join("ballast")));
            self.full = false;
        }
    }

    /// From now on no file is opened for writing, made, renamed or removed; those that are open are written.
    pub fn turn_read_only(&mut self) {
        let folder = self.folder.display().to_string();
        // A file that is opened for writing between the two steps is in the way of the second one.
        for _ in 0..20 {
            if !self.mounted || self.read_only || !ran("mount", &["--bind", &folder], &self.folder)
            {
                return;
            }
            self.read_only = ran("mount", &["-o", "remount,bind,ro"], &self.folder);
            if !self.read_only {
                assert!(ran("umount", &["-l"], &self.folder), "as it was");
            }
        }
    }

    /// It can be written again.
    pub fn turn_writable(&mut self) {
        if self.read_only {
            assert!(ran("umount", &["-l"], &self.folder), "writable again");
            self.read_only = false;
        }
    }

    /// The folders are no longer those of the process.
    pub fn forbid(&mut self) {
        if self.has_nobody() && self.is_usable() {
            ["spool", "data"].iter().for_each(|name| set_usable(&self.folder.join(name), false));
            self.forbidden = true;
        }
    }

    /// They are again, once the disk can be written.
    pub fn allow(&mut self) {
        if self.forbidden && !self.read_only {
            ["spool", "data"].iter().for_each(|name| set_usable(&self.folder.join(name), true));
            self.forbidden = false;
        }
    }

    /// Lets no write end for so long.
    pub fn freeze(&self, length: Duration) {
        if self.mounted && ran("fsfreeze", &["-f"], &self.folder) {
            thread::sleep(length);
            assert!(ran("fsfreeze", &["-u"], &self.folder), "thawed");
        }
    }

    /// All is well.
    pub fn mend(&mut self) {
        self.turn_writable();
        self.allow();
        self.empty();
    }

    /// The process's clock is so many seconds ahead.
    pub fn set_clock(&self, seconds: i64) {
        let fresh = self.clock.with_extension("fresh");
        fs::write(&fresh, seconds.to_string()).expect("written");
        fs::rename(&fresh, &self.clock).expect("there at once");
    }

    /// What a process's environment needs for its clock to be set.
    pub fn clock(&self) -> [(&'static str, String); 2] {
        let library = self.clock.with_extension("so");
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/support/clock.c");
        let mut compiler = Command::new("cc");
        compiler.args(["-O1", "-shared", "-fPIC", "-o"]).arg(&library).arg(source).arg("-ldl");
        assert!(compiler.status().expect("a C compiler, as for the build").success());
        [("LD_PRELOAD", library.display().to_string()), ("CLOCK", self.clock.display().to_string())]
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        self.mend();
        if self.mounted {
            ran("umount", &["-l"], &self.folder);
        }
    }
}
