//! The clock by which leases are trusted.

use std::time::Duration;

/// Time since boot, sleep included: a laptop that slept must not trust a lease that ran out meanwhile, and
/// `Instant` does not count that time on Linux.
pub(crate) fn now() -> Duration {
    #[cfg(any(target_os = "linux", target_os = "android"))]
    const CLOCK: rustix::time::ClockId = rustix::time::ClockId::Boottime;
    // Elsewhere the monotonic clock is the nearest; on macOS it runs during sleep.
    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    const CLOCK: rustix::time::ClockId = rustix::time::ClockId::Monotonic;
    let time = rustix::time::clock_gettime(CLOCK);
    Duration::new(time.tv_sec.unsigned_abs(), time.tv_nsec.unsigned_abs() as u32)
}

#[cfg(test)]
mod tests {
    /// /proc/uptime counts sleep too. On a machine that has slept, or in a time namespace that pretends so (`unshare -T
    /// --boottime 86400`), another clock is found out.
    #[cfg(target_os = "linux")]
    #[test]
    fn it_counts_sleep() {
        let uptime = || {
            let text = std::fs::read_to_string("/proc/uptime").unwrap();
            text.split(' ').next().unwrap().parse::<f64>().unwrap()
        };
        let (before, now, after) = (uptime(), super::now().as_secs_f64(), uptime());
        // It has hundredths, cut off.
        assert!(before <= now && now <= after + 0.01, "{before} <= {now} <= {after}");
    }

    #[test]
    fn it_runs() {
        let before = super::now();
        while super::now() == before {}
        assert!(super::now() > before);
    }
}
