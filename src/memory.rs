//! What the process may take of memory, what it takes, and how much is looked at by that.
//!
//! The limit is a key of the configuration, else that of the process's control group (version 2 or 1),
//! past which the kernel kills. Files in the page cache do not count: the kernel lets go of them first.
//! A group that the process has for itself, as in a container, tells of its sockets' buffers too; of one
//! that it shares only its own part counts.

use std::fs;
use std::path::{Path, PathBuf};

use crate::domain::CaptureLevel;

/// What version 1 says where there is no limit is about 2^63; nobody means more than this.
const UNLIMITED: u64 = 1 << 60;
/// From these shares of the limit on, in percent, less is looked at.
const RUNGS: [(u64, CaptureLevel); 3] =
    [(60, CaptureLevel::Headers), (75, CaptureLevel::Metrics), (85, CaptureLevel::Off)];
/// A rung is left again this many percent below it, so that the level does not flutter.
const SLACK: u64 = 5;

/// A limit, and where its use is read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Memory {
    limit_bytes: u64,
    source: Source,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Source {
    /// The process alone: `/proc/self/status`.
    Process,
    /// The folder of a control group, and the names of its files.
    Group(PathBuf, &'static Names),
}

/// What a version of control groups calls its files and figures.
#[derive(Debug, PartialEq, Eq)]
struct Names {
    /// The type of its file system.
    fs_type: &'static str,
    limit: &'static str,
    used: &'static str,
    /// The figures of `memory.stat` that the kernel can let go of.
    files: [&'static str; 2],
}

/// <https://docs.kernel.org/admin-guide/cgroup-v2.html#memory-interface-files>
const V2: Names = Names {
    fs_type: "cgroup2",
    limit: "memory.max",
    used: "memory.current",
    files: ["inactive_file", "active_file"],
};
/// <https://docs.kernel.org/admin-guide/cgroup-v1/memory.html>
const V1: Names = Names {
    fs_type: "cgroup",
    limit: "memory.limit_in_bytes",
    used: "memory.usage_in_bytes",
    files: ["total_inactive_file", "total_active_file"],
};

impl Memory {
    /// The limit that is `configured`, else the control group's; `None` where there is neither.
    pub fn find(configured: Option<u64>) -> Option<Self> {
        if let Some(limit_bytes) = configured {
            return Some(Self { limit_bytes, source: Source::Process });
        }
        let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        [&V1, &V2].into_iter().find_map(|names| {
            let (mount, folder) = group_folder(&groups, &mounts, names)?;
            let limit_bytes = tightest(&mount, &folder, names.limit)?;
            Some(Self { limit_bytes, source: Source::Group(folder, names) })
        })
    }

    /// Bytes that the process may take.
    pub fn limit_bytes(&self) -> u64 {
        self.limit_bytes
    }

    /// Bytes that it takes now; `None` where that cannot be read.
    pub fn used_bytes(&self) -> Option<u64> {
        match &self.source {
            Source::Group(folder, names) if is_alone(folder) => {
                let used = number(&folder.join(names.used))?;
                let stat = fs::read_to_string(folder.join("memory.stat")).ok()?;
                let files = names.files.iter().filter_map(|name| figure(&stat, name)).sum();
                Some(used.saturating_sub(files))
            }
            _ => {
                let status = fs::read_to_string("/proc/self/status").ok()?;
                let kib = figure(&status, "RssAnon:")? + figure(&status, "RssShmem:")?;
                Some(kib * 1024)
            }
        }
    }

    /// How much to look at with `used_bytes` taken, where `before` held until now.
    pub fn level(&self, used_bytes: u64, before: CaptureLevel) -> CaptureLevel {
        let percent = used_bytes.saturating_mul(100) / self.limit_bytes.max(1);
        let holds = |rung: u64, level| {
            let slack = if before >= level { SLACK } else { 0 };
            percent >= rung - slack
        };
        let reached = RUNGS.iter().rev().find(|(rung, level)| holds(*rung, *level));
        reached.map_or(CaptureLevel::Full, |(_, level)| *level)
    }
}

/// Where the process's group is mounted, and its folder below that, from `/proc/self/cgroup` and
/// `/proc/self/mountinfo`.
fn group_folder(groups: &str, mounts: &str, names: &Names) -> Option<(PathBuf, PathBuf)> {
    let path = groups.lines().find_map(|line| {
        let mut parts = line.splitn(3, ':');
        let (_number, controllers, path) = (parts.next()?, parts.next()?, parts.next()?);
        let wanted = match names.fs_type {
            "cgroup2" => controllers.is_empty(),
            _ => controllers.split(',').any(|controller| controller == "memory"),
        };
        wanted.then_some(path)
    })?;
    mounts.lines().find_map(|line| {
        let (before, after) = line.split_once(" - ")?;
        let mut after = after.split(' ');
        let of_version = after.next()? == names.fs_type;
        let of_memory =
            names.fs_type == "cgroup2" || after.nth(1)?.split(',').any(|o| o == "memory");
        let mut before = before.split(' ').skip(3);
        let (root, mount) = (before.next()?, PathBuf::from(before.next()?));
        // In a container the mount may begin at the group itself, while the path is the host's.
        let below = Path::new(path).strip_prefix(root).unwrap_or(Path::new(""));
        let folder = mount.join(below);
        let folder = if folder.is_dir() { folder } else { mount.clone() };
        (of_version && of_memory).then_some((mount, folder))
    })
}

/// No other process is in the group.
fn is_alone(folder: &Path) -> bool {
    let processes = fs::read_to_string(folder.join("cgroup.procs")).unwrap_or_default();
    processes.lines().count() == 1
}

/// The least limit of a group and those around it.
fn tightest(mount: &Path, folder: &Path, file: &str) -> Option<u64> {
    let around = folder.ancestors().take_while(|folder| folder.starts_with(mount));
    let limits = around.filter_map(|folder| number(&folder.join(file)));
    limits.filter(|limit| *limit < UNLIMITED).min()
}

fn number(file: &Path) -> Option<u64> {
    fs::read_to_string(file).ok()?.trim().parse().ok()
}

/// The number of the line that begins with `name`.
fn figure(text: &str, name: &str) -> Option<u64> {
    let mut lines = text.lines().map(str::split_whitespace);
    lines.find_map(|mut words| (words.next() == Some(name)).then(|| words.next())?)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(limit_bytes: u64) -> Memory {
        Memory { limit_bytes, source: Source::Process }
    }

    #[test]
    fn the_ladder_is_climbed_at_60_75_and_85_percent_and_left_5_below() {
        use CaptureLevel::{Full, Headers, Metrics, Off};
        let memory = of(1000);
        let mut before = Full;
        for (used, level) in [
            (599, Full),
            (600, Headers),
            (560, Headers),
            (549, Full),
            (900, Off),
            (805, Off),
            (799, Metrics),
            (705, Metrics),
            (699, Headers),
            (760, Metrics),
            (0, Full),
        ] {
            before = memory.level(used, before);
            assert_eq!(before, level, "{used}");
        }
        assert_eq!(of(0).level(1, Full), Off, "nothing divides by zero");
    }

    #[test]
    fn the_process_itself_is_measured() {
        let memory = Memory::find(Some(64 << 20)).expect("a limit");
        assert_eq!(memory.limit_bytes(), 64 << 20);
        assert!(memory.used_bytes().is_some_and(|bytes| bytes > 100_000));
    }

    #[test]
    fn groups_of_both_versions_are_found_where_they_are_mounted() {
        let root = tempfile::tempdir().expect("a folder");
        let mount = root.path().join("memory");
        let own = mount.join("pod/flowtap");
        fs::create_dir_all(&own).expect("folders");
        let at = mount.display();
        let v1 = format!(
            "20 1 0:5 / /proc rw - proc proc rw\n\
             21 1 0:6 / /elsewhere rw shared:3 - cgroup cgroup rw,cpu,cpuacct\n\
             22 1 0:7 / {at} rw,nosuid shared:4 - cgroup cgroup rw,memory\n"
        );
        let found = group_folder("4:cpu,cpuacct:/x\n3:memory:/pod/flowtap\n0::/\n", &v1, &V1);
        assert_eq!(found, Some((mount.clone(), own.clone())));
        let v2 = format!("22 1 0:7 / {at} rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n");
        assert_eq!(group_folder("0::/pod/flowtap\n", &v2, &V2), Some((mount.clone(), own.clone())));
        // Bound into a container whose group's path is the host's.
        let bound = format!("22 1 0:7 /docker/1 {at} ro - cgroup cgroup rw,memory\n");
        let found = group_folder("3:memory:/docker/1\n", &bound, &V1);
        assert_eq!(found, Some((mount.clone(), mount.clone())));
        assert_eq!(group_folder("0::/\n", &v1, &V1), None);

        fs::write(mount.join("memory.max"), "max\n").expect("a file");
        fs::write(mount.join("pod/memory.max"), "1048576\n").expect("a file");
        fs::write(own.join("memory.max"), "4194304\n").expect("a file");
        fs::write(own.join("memory.current"), "2000000\n").expect("a file");
        fs::write(own.join("memory.stat"), "anon 5\ninactive_file 300000\nactive_file 200000\n")
            .expect("a file");
        assert_eq!(tightest(&mount, &own, V2.limit), Some(1_048_576), "the pod's");
        let memory = Memory { limit_bytes: 1, source: Source::Group(own.clone(), &V2) };
        fs::write(own.join("cgroup.procs"), "7\n").expect("a file");
        assert_eq!(memory.used_bytes(), Some(1_500_000));
        fs::write(own.join("cgroup.procs"), "7\n8\n").expect("a file");
        assert_ne!(memory.used_bytes(), Some(1_500_000), "others' use is not ours");
        fs::write(own.join("memory.limit_in_bytes"), "9223372036854771712\n").expect("a file");
        assert_eq!(tightest(&mount, &own, V1.limit), None, "no limit");
    }
}
