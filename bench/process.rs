//! What a process costs, and how the benches run each of theirs.

use std::fs;
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

#[derive(Debug, Clone, Copy)]
pub struct Usage {
    pub cpu: Duration,
    pub rss_mb: f64,
    pub threads: u32,
    pub descriptors: usize,
}

/// Of this process, now.
pub fn usage() -> Usage {
    let status = fs::read_to_string("/proc/self/status").expect("Linux has it");
    let field = |name: &str| -> f64 {
        let line = status
            .lines()
            .find(|line| line.starts_with(name))
            .expect("it is listed");
        line.split_ascii_whitespace()
            .nth(1)
            .expect("a value")
            .parse()
            .expect("a number")
    };
    // What /proc counts in ticks of 10 ms misses much of what runs for microseconds at a time.
    let cpu = clock_gettime(ClockId::ProcessCPUTime);
    Usage {
        cpu: Duration::new(cpu.tv_sec as u64, cpu.tv_nsec as u32),
        rss_mb: field("VmRSS:") / 1024.0,
        threads: field("Threads:") as u32,
        descriptors: fs::read_dir("/proc/self/fd").expect("Linux has it").count(),
    }
}

/// Runs this program once more for each count, so that none pays for another's memory, and all of it
/// three times, since other work on the machine comes and goes. A row is the run of median CPU.
pub fn rounds(bench: &str, counts: &[usize]) -> serde_json::Value {
    const ROUNDS: usize = 3;
    let program = std::env::current_exe().expect("it runs");
    let mut runs = vec![Vec::new(); counts.len()];
    for _ in 0..ROUNDS {
        for (count, runs) in counts.iter().zip(&mut runs) {
            let output = Command::new(&program)
                .arg(count.to_string())
                .stderr(Stdio::inherit())
                .output()
                .expect("it runs");
            let row: serde_json::Value =
                serde_json::from_slice(&output.stdout).expect("it prints JSON");
            runs.push(row);
        }
    }
    let cpu = |row: &serde_json::Value| row["cpu_percent_each"].as_f64().unwrap_or(f64::NAN);
    let rows = runs.into_iter().map(|mut runs| {
        runs.sort_by(|a, b| cpu(a).total_cmp(&cpu(b)));
        let (least, most) = (cpu(&runs[0]), cpu(&runs[ROUNDS - 1]));
        let mut row = runs.swap_remove(ROUNDS / 2);
        row["cpu_percent_each_between"] = serde_json::json!([least, most]);
        row
    });
    serde_json::json!({ "bench": bench, "rows": rows.collect::<Vec<_>>() })
}
