//! What a process costs, from /proc.

use std::fs;
use std::time::Duration;

#[derive(Debug, Clone, Copy)]
pub struct Usage {
    pub cpu: Duration,
    pub rss_mb: f64,
    pub threads: u32,
}

/// Of this process, now.
pub fn usage() -> Usage {
    let stat = fs::read_to_string("/proc/self/stat").expect("Linux has it");
    // The name may hold spaces; it ends with the last parenthesis.
    let fields: Vec<&str> = stat[stat.rfind(')').expect("it has a name") + 2..]
        .split(' ')
        .collect();
    let ticks: u64 =
        fields[11].parse::<u64>().expect("utime") + fields[12].parse::<u64>().expect("stime");
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
    Usage {
        // 100 ticks a second on every Linux that Debian ships.
        cpu: Duration::from_millis(ticks * 10),
        rss_mb: field("VmRSS:") / 1024.0,
        threads: field("Threads:") as u32,
    }
}
