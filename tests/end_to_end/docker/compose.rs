//! The compose file, its services as plain processes.

use std::{
    fs,
    net::TcpStream,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use gatefeed_tests::{Cluster, Gatefeed, eventually, free_port};
use yaml_rust2::{Yaml, YamlLoader};

use super::{
    complete_partitions,
    image::{Env, Image},
    output, repository,
};

/// docker/compose.yaml with the variables' defaults filled in.
struct Compose {
    document: Yaml,
}

impl Compose {
    fn read() -> Self {
        let text = fs::read_to_string(repository().join("docker/compose.yaml")).unwrap();
        let document = YamlLoader::load_from_str(&with_defaults(&text)).unwrap().remove(0);
        Self { document }
    }

    fn service(&self, name: &str) -> &Yaml {
        &self.document["services"][name]
    }

    fn env(&self, name: &str) -> Env {
        let env = self.service(name)["environment"].as_hash().unwrap();
        env.iter().map(|(name, value)| (text(name), text(value))).collect()
    }
}

/// `${NAME:-default}` is the default.
fn with_defaults(text: &str) -> String {
    let mut parts = text.split("${");
    let mut filled = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let (variable, rest) = part.split_once('}').unwrap();
        filled += variable.split_once(":-").expect("every variable has a default").1;
        filled += rest;
    }
    filled
}

fn text(yaml: &Yaml) -> String {
    yaml.as_str().unwrap_or_else(|| panic!("a string: {yaml:?}")).to_owned()
}

fn texts(yaml: &Yaml) -> Vec<String> {
    yaml.as_vec().unwrap_or_else(|| panic!("a list: {yaml:?}")).iter().map(text).collect()
}

fn seconds(yaml: &Yaml) -> u64 {
    text(yaml).strip_suffix('s').unwrap().parse().unwrap()
}

/// The services, each on an address of this machine.
struct Composed {
    compose: Compose,
    cluster: Cluster,
    image: Image,
    handler_port: u16,
}

impl Composed {
    fn new() -> Self {
        Self {
            compose: Compose::read(),
            cluster: Cluster::start(),
            image: Image::lay_out(),
            handler_port: free_port(),
        }
    }

    /// What the image of Postgres does at its first start.
    fn set_up_database(&self) {
        let env = self.compose.env("postgres");
        let (user, password) = (&env["POSTGRES_USER"], &env["POSTGRES_PASSWORD"]);
        let psql = |sql: &str| self.psql(&self.cluster.url(), sql);
        psql(&format!("CREATE ROLE {user} LOGIN SUPERUSER PASSWORD '{password}'"));
        psql(&format!("CREATE DATABASE {} OWNER {user}", env["POSTGRES_DB"]));
    }

    fn psql(&self, url: &str, sql: &str) -> String {
        let mut psql = Command::new(self.cluster.program("psql"));
        psql.args(["-X", "-q", "-t", "-A", "-v", "ON_ERROR_STOP=1", "-c", sql, url]);
        output(&mut psql).trim().to_owned()
    }

    fn sql(&self, sql: &str) -> String {
        self.psql(&self.here(&self.compose.env("watcher")["GATEFEED_DATABASE_URL"]), sql)
    }

    fn database_is_healthy(&self) -> bool {
        let words = texts(&self.compose.service("postgres")["healthcheck"]["test"]);
        assert_eq!(words[0], "CMD");
        let mut check = Command::new(self.cluster.program(&words[1]));
        check.args(&words[2..]).env("PGPORT", self.cluster.port.to_string());
        check.output().unwrap().status.success()
    }

    /// A name of the composed network as an address of this machine. The handler's is one that only a process
    /// that listens on all addresses answers at.
    fn here(&self, text: &str) -> String {
        let handler = format!("handler:{}", self.compose.env("handler")["PORT"]);
        text.replace("postgres:5432", &format!("127.0.0.1:{}", self.cluster.port))
            .replace(&handler, &format!("127.0.0.2:{}", self.handler_port))
    }

    /// The example handler, from where the compose file mounts it.
    fn start_handler(&self) -> Gatefeed {
        let service = self.compose.service("handler");
        let words = texts(&service["command"]);
        let mut command = Command::new(&words[0]);
        command.args(words[1..].iter().map(|word| mounted(&service["volumes"], word)));
        command.envs(self.compose.env("handler")).env("PORT", self.handler_port.to_string());
        Gatefeed::start(command)
    }

    /// A watcher's variables: each has a port of its own here, where they share one network.
    fn watcher_env(&self) -> Env {
        let env = self.compose.env("watcher");
        let mut env: Env = env.into_iter().map(|(name, value)| (name, self.here(&value))).collect();
        env.insert("GATEFEED_LISTEN".into(), format!("127.0.0.1:{}", free_port()));
        env
    }

    /// Twenty partitions of ten items.
    fn push(&self, round: u32) {
        self.sql(&format!(
            "INSERT INTO gatefeed_partitions (id) SELECT '{round}-' || p FROM generate_series(1, 20) AS p; \
             INSERT INTO gatefeed_items (partition_id, id, data) \
             SELECT '{round}-' || p, 'i' || i, '{{\"texts\": [\"one two\", \"three\"]}}' \
             FROM generate_series(1, 20) AS p, generate_series(1, 10) AS i"
        ));
    }

    async fn all_complete(&self) {
        let open = "SELECT count(*) FROM gatefeed_partitions WHERE status <> 'complete'";
        eventually("everything is complete", || self.sql(open) == "0").await;
    }

    /// How many watchers have held a lease since [`NOTE_OWNERS`].
    fn owners(&self) -> u32 {
        self.sql("SELECT count(DISTINCT name) FROM owners").parse().unwrap()
    }
}

/// The file that a path in a container is.
fn mounted(volumes: &Yaml, path: &str) -> PathBuf {
    let docker = repository().join("docker");
    for volume in texts(volumes) {
        let mut parts = volume.split(':');
        let (here, there) = (parts.next().unwrap(), parts.next().unwrap());
        if let Ok(rest) = Path::new(path).strip_prefix(there) {
            let file = docker.join(here).join(rest);
            assert!(file.is_file(), "{} does not exist", file.display());
            return file;
        }
    }
    path.into()
}

const NOTE_OWNERS: &str = "\
    CREATE TABLE owners (name text); \
    CREATE FUNCTION note_owner() RETURNS trigger LANGUAGE plpgsql AS \
    $$ BEGIN INSERT INTO owners VALUES (NEW.owner); RETURN NULL; END $$; \
    CREATE TRIGGER note_owner AFTER UPDATE OF owner ON gatefeed_partitions \
    FOR EACH ROW WHEN (NEW.owner IS NOT NULL) EXECUTE FUNCTION note_owner()";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_composed_works_together() {
    let composed = Composed::new();
    composed.set_up_database();
    eventually("Postgres is healthy", || composed.database_is_healthy()).await;
    let handler = composed.start_handler();
    let reached = || TcpStream::connect(("127.0.0.2", composed.handler_port)).is_ok();
    eventually("the handler listens on all addresses, as HOST says", reached).await;
    let service = composed.compose.service("watcher");
    let (command, replicas) = (texts(&service["command"]), service["deploy"]["replicas"].as_i64().unwrap());
    assert_eq!(replicas, 3);
    let envs: Vec<Env> = (0..replicas).map(|_| composed.watcher_env()).collect();
    // At the same moment, on an empty database: one migrates, the others wait.
    let watchers: Vec<Gatefeed> = envs.iter().map(|env| composed.image.start(Some(&command), env)).collect();
    for env in &envs {
        eventually("a watcher is healthy", || composed.image.is_healthy(env)).await;
    }
    composed.sql(NOTE_OWNERS);
    let mut rounds = 0;
    while rounds < 20 && composed.owners() < 2 {
        composed.push(rounds);
        composed.all_complete().await;
        rounds += 1;
    }
    assert!(composed.owners() >= 2, "one watcher took everything, {rounds} times");
    let sums =
        "SELECT DISTINCT convert_from(data, 'UTF8')::json->>'words' FROM gatefeed_items WHERE gate = 1";
    assert_eq!(composed.sql(sums), "3");
    assert_eq!(composed.sql("SELECT DISTINCT status FROM gatefeed_items"), "complete");
    assert_eq!(complete_partitions(&composed.image, &envs[0]), u64::from(rounds) * 20);
    assert!(!composed.image.path("/data/gatefeed.db").exists(), "nothing went to SQLite");
    for watcher in watchers {
        assert_eq!(watcher.terminate().await.code(), Some(0));
    }
    assert_eq!(handler.terminate().await.code(), Some(0));
}

#[test]
fn the_image_takes_the_usual_variable_for_its_database() {
    let composed = Composed::new();
    let env = Env::from([("DATABASE_URL".to_owned(), composed.cluster.url())]);
    composed.image.output(&["gatefeed", "migrate"], &env).unwrap();
    let tables = "SELECT to_regclass('public.gatefeed_items')";
    assert_eq!(composed.psql(&composed.cluster.url(), tables), "gatefeed_items");
}

#[test]
fn only_this_machine_reaches_the_ports_and_a_stop_has_its_time() {
    let compose = Compose::read();
    for port in texts(&compose.service("postgres")["ports"]) {
        assert!(port.starts_with("127.0.0.1:"), "{port}");
    }
    let watcher = compose.service("watcher");
    let grace = seconds(&watcher["environment"]["GATEFEED_GRACE"]);
    assert!(seconds(&watcher["stop_grace_period"]) >= grace + 15, "and time to write what came of it");
    let build = repository().join("docker").join(text(&watcher["build"]["context"]));
    assert!(build.join(text(&watcher["build"]["dockerfile"])).is_file());
    assert!(build.join(".dockerignore").is_file());
    assert_eq!(watcher["depends_on"]["postgres"]["condition"].as_str(), Some("service_healthy"));
    let volume = text(&compose.service("postgres")["volumes"][0]);
    assert!(!compose.document["volumes"][volume.split(':').next().unwrap()].is_badvalue());
    let deadline = Duration::from_secs(seconds(&compose.service("postgres")["healthcheck"]["start_period"]));
    assert!(deadline >= Duration::from_secs(30));
}
