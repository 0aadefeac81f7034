//! PgBouncer before a cluster, in transaction mode: each transaction gets another server connection.

use std::{
    fs,
    net::TcpStream,
    process::{Child, Command, Stdio},
};

use crate::{Cluster, cluster::is_root, eventually, free_port};

/// Fewer than one watcher would have, so that they wait for each other.
const CONNECTIONS: u16 = 4;

/// A pooler; gone when dropped.
pub struct Pooler {
    child: Child,
    port: u16,
    dir: tempfile::TempDir,
}

impl Pooler {
    /// Starts the `pgbouncer` of the PATH and waits until it answers; `None`: there is none.
    pub async fn start(cluster: &Cluster) -> Option<Self> {
        Command::new("pgbouncer").arg("--version").stdout(Stdio::null()).status().ok()?;
        let (dir, port) = (tempfile::tempdir().unwrap(), free_port());
        let (config, log) = (dir.path().join("config"), dir.path().join("log"));
        let text = format!(
            "[databases]\n* = host=127.0.0.1 port={} user=postgres\n\
             [pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\nauth_type = any\n\
             pool_mode = transaction\ndefault_pool_size = {CONNECTIONS}\nmax_client_conn = 500\n\
             ignore_startup_parameters = extra_float_digits\n",
            cluster.port
        );
        fs::write(&config, text).unwrap();
        let mut command = Command::new("pgbouncer");
        if is_root() {
            // It refuses to run as root.
            command.args(["--user", "postgres"]);
            assert!(
                Command::new("chown").args(["-R", "postgres"]).arg(dir.path()).status().unwrap().success()
            );
        }
        let log = fs::File::create(log).unwrap();
        let child =
            command.arg(&config).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn().unwrap();
        let mut pooler = Self { child, port, dir };
        eventually("the pooler answers", || {
            assert!(pooler.child.try_wait().unwrap().is_none(), "{}", pooler.log());
            TcpStream::connect(("127.0.0.1", port)).is_ok()
        })
        .await;
        Some(pooler)
    }

    /// The URL of the cluster's database `postgres`, through it.
    pub fn url(&self) -> String {
        format!("postgres://postgres@127.0.0.1:{}/postgres", self.port)
    }

    /// What it has logged.
    pub fn log(&self) -> String {
        fs::read_to_string(self.dir.path().join("log")).unwrap()
    }
}

impl Drop for Pooler {
    fn drop(&mut self) {
        _ = self.child.kill();
        _ = self.child.wait();
    }
}
