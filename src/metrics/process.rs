//! The process itself, read from `/proc` at each scrape; where there is none, all stays zero.

use std::fs;
use std::sync::{Mutex, PoisonError};

use prometheus::{Counter, Gauge, IntGauge, Result};

use super::families as f;
use super::registry::Registrar;

/// Clock ticks a second in `/proc`: USER_HZ, which Linux fixes at 100 on x86, ARM and RISC-V.
const TICKS_PER_SECOND: f64 = 100.0;

/// The `process_*` families.
pub(super) struct Process {
    cpu: Counter,
    cpu_before: Mutex<f64>,
    resident: IntGauge,
    virtual_memory: IntGauge,
    fds: IntGauge,
    fds_max: IntGauge,
    threads: IntGauge,
    start: Gauge,
}

impl Process {
    pub(super) fn register(reg: &mut Registrar) -> Result<Self> {
        Ok(Self {
            cpu: reg.fraction_counter(&f::PROCESS_CPU)?,
            cpu_before: Mutex::new(0.0),
            resident: reg.gauge(&f::PROCESS_RSS)?,
            virtual_memory: reg.gauge(&f::PROCESS_VIRTUAL)?,
            fds: reg.gauge(&f::PROCESS_FDS)?,
            fds_max: reg.gauge(&f::PROCESS_FDS_MAX)?,
            threads: reg.gauge(&f::PROCESS_THREADS)?,
            start: reg.fraction(&f::PROCESS_START)?,
        })
    }

    /// Reads `/proc` again.
    pub(super) fn refresh(&self) {
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        self.resident.set(field(&status, "VmRSS:").saturating_mul(1024));
        self.virtual_memory.set(field(&status, "VmSize:").saturating_mul(1024));
        self.threads.set(field(&status, "Threads:"));
        let limits = fs::read_to_string("/proc/self/limits").unwrap_or_default();
        self.fds_max.set(field(&limits, "Max open files"));
        self.fds.set(fs::read_dir("/proc/self/fd").map_or(0, |entries| entries.count() as i64));
        let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
        self.spent(cpu_seconds(&stat));
        self.start.set(start_seconds(&stat, &fs::read_to_string("/proc/stat").unwrap_or_default()));
    }

    fn spent(&self, cpu: f64) {
        let mut before = self.cpu_before.lock().unwrap_or_else(PoisonError::into_inner);
        if cpu > *before {
            self.cpu.inc_by(cpu - *before);
            *before = cpu;
        }
    }
}

/// The first number of the line that begins with `name`.
fn field(text: &str, name: &str) -> i64 {
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    line.and_then(|rest| rest.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}

/// User and system time: fields 14 and 15 of proc_pid_stat(5).
fn cpu_seconds(stat: &str) -> f64 {
    (stat_field(stat, 14) + stat_field(stat, 15)) / TICKS_PER_SECOND
}

/// Boot time plus field 22, the start after boot.
fn start_seconds(stat: &str, system: &str) -> f64 {
    field(system, "btime") as f64 + stat_field(stat, 22) / TICKS_PER_SECOND
}

/// Field `number`, counted from 1; the second is a name in parentheses that may hold anything.
fn stat_field(stat: &str, number: usize) -> f64 {
    let rest = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
    rest.split_whitespace().nth(number - 3).and_then(|text| text.parse().ok()).unwrap_or(0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_found_behind_a_hostile_process_name() {
        let stat = "7 (a) b (c) S 1 7 7 0 -1 4194304 90 0 0 0 150 50 0 0 20 0 9 0 1000 1 1";
        assert!((cpu_seconds(stat) - 2.0).abs() < 1e-9);
        assert!((start_seconds(stat, "cpu 1\nbtime 1700000000\n") - 1_700_000_010.0).abs() < 1e-6);
        assert_eq!(field("Name:\tx\nVmRSS:\t  2048 kB\n", "VmRSS:"), 2048);
        assert_eq!(cpu_seconds(""), 0.0);
    }
}
