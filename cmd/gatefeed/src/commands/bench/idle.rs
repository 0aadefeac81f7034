//! `gatefeed bench idle`.

use std::{
    fs,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use gatefeed_core::answer::Answer;
use gatefeed_engine::{Delivery, Watcher};
use tokio_util::sync::CancellationToken;

use super::{
    IdleArgs,
    figures::{About, Idle},
    place::Place,
};

/// Until the watcher has settled.
const SETTLE: Duration = Duration::from_secs(2);

/// Partitions that wait and partitions that are complete, a watcher, and nothing to do.
pub(crate) async fn idle(place: &Place, args: &IdleArgs) -> Result<Idle> {
    let mut plain = place.limit().await?;
    plain.fill_idle(args.partitions).await?;
    plain.vacuum().await?;
    let server = plain.backend().await?.and_then(server_of);
    let stop = CancellationToken::new();
    let processor = |_: Delivery| async { Ok(Answer::done()) };
    let watcher = Watcher::builder(place.open().await?).shutdown(stop.clone()).processor(processor);
    let watcher = tokio::spawn(watcher.run());
    tokio::time::sleep(SETTLE).await;
    let (started, own, database) = (Instant::now(), cpu_of_this_process()?, server.map(cpu_of_children));
    tokio::time::sleep(args.run.duration).await;
    let seconds = started.elapsed().as_secs_f64();
    let share = |before: f64, after: f64| 100.0 * (after - before).max(0.0) / seconds;
    let figures = Idle {
        about: About::new("idle", place),
        partitions_waiting: args.partitions,
        partitions_complete: args.partitions,
        seconds,
        watcher_cpu_percent: share(own, cpu_of_this_process()?),
        database_cpu_percent: server
            .zip(database)
            .map(|(server, before)| share(before, cpu_of_children(server))),
        resident_bytes: resident_bytes().context("/proc/self/status cannot be read")?,
    };
    stop.cancel();
    watcher.await??;
    Ok(figures)
}

/// The process that began a Postgres backend, if it runs on this machine.
fn server_of(backend: u32) -> Option<u32> {
    let name = fs::read_to_string(format!("/proc/{backend}/comm")).ok()?;
    name.starts_with("postgres").then(|| parent_and_cpu(backend)).flatten().map(|(parent, _)| parent)
}

/// The seconds of CPU time of a server's processes.
fn cpu_of_children(server: u32) -> f64 {
    let Ok(processes) = fs::read_dir("/proc") else { return 0.0 };
    let ids = processes.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let of_server = ids.filter_map(parent_and_cpu).filter(|(parent, _)| *parent == server);
    of_server.map(|(_, seconds)| seconds).sum()
}

fn cpu_of_this_process() -> Result<f64> {
    let cpu = parent_and_cpu(std::process::id()).context("/proc/self/stat cannot be read")?;
    Ok(cpu.1)
}

/// Fields 4, 14 and 15 of /proc/PID/stat; a tick is 10 ms on Linux.
fn parent_and_cpu(process: u32) -> Option<(u32, f64)> {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    let fields: Vec<&str> = stat.rsplit_once(") ")?.1.split(' ').collect();
    let ticks: f64 = fields.get(11)?.parse::<f64>().ok()? + fields.get(12)?.parse::<f64>().ok()?;
    Some((fields.get(1)?.parse().ok()?, ticks / 100.0))
}

fn resident_bytes() -> Option<i64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: i64 = line.trim().trim_end_matches(" kB").parse().ok()?;
    Some(kib * 1024)
}
