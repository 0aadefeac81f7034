//! docker/ without an engine: the image's build steps and what is composed of it run as plain processes.

mod compose;
mod context;
mod dockerfile;
mod image;

use std::{
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use gatefeed_tests::{Ledger, binary, eventually, free_port};
use rustix::process::Signal;

use self::{
    context::Ignore,
    image::{Env, Image},
};

/// What a binary may be linked to. Debian's libc6 brings libc, libm and the loader, and depends on libgcc-s1: so
/// every Debian image has them. (linux-vdso is the kernel's.)
const LIBRARIES: [&str; 4] = ["linux-vdso.so.1", "libc.so.6", "libm.so.6", "libgcc_s.so.1"];

/// The image's profile without what takes minutes: the same sources, flags and linker.
const QUICK: [(&str, &str); 4] = [
    ("CARGO_PROFILE_RELEASE_OPT_LEVEL", "0"),
    ("CARGO_PROFILE_RELEASE_LTO", "off"),
    ("CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "16"),
    ("CARGO_NET_OFFLINE", "true"),
];

fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
}

/// Runs a command that succeeds; what it prints.
fn output(command: &mut Command) -> String {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// "1.90" of "rust:1.90-slim-bookworm", or of "1.90.1".
fn version(text: &str) -> (u32, u32) {
    let text = text.split_once(':').map_or(text, |(_, tag)| tag);
    let mut numbers = text.split(['.', '-']).map(|number| number.parse().unwrap());
    (numbers.next().unwrap(), numbers.next().unwrap())
}

#[test]
fn the_compiler_is_new_enough_for_every_package() {
    let rustc = output(Command::new("rustc").arg("-vV"));
    let host = rustc.lines().find_map(|line| line.strip_prefix("host: ")).unwrap();
    let mut metadata = Command::new("cargo");
    metadata.args(["metadata", "--format-version=1", "--locked", "--offline", "--filter-platform", host]);
    let metadata: serde_json::Value =
        serde_json::from_str(&output(metadata.current_dir(repository()))).unwrap();
    let (build, _) = dockerfile::stages();
    let ours = version(build.base());
    for package in metadata["packages"].as_array().unwrap() {
        let needed = package["rust_version"].as_str().map_or((0, 0), version);
        assert!(needed <= ours, "{}: {} needs Rust {needed:?}", build.base(), package["name"]);
    }
}

#[test]
fn the_image_is_what_it_says() {
    let (build, image) = dockerfile::stages();
    let codename = |base: &str| base.split(['-', ':']).find(|part| *part == "bookworm").map(str::to_owned);
    assert!(codename(build.base()).is_some(), "another Debian may have another glibc");
    assert_eq!(codename(build.base()), codename(image.base()));
    assert!(image.user().0 > 0 && image.user().1 > 0, "not root");
    assert!(image.run_steps()[0].contains("install -y --no-install-recommends ca-certificates"));
    assert_eq!(image.one("WORKDIR"), image.one("VOLUME"), "the default database is in the volume");
    let (user, group) = image.user();
    let owned = format!("-o {user} -g {group}");
    assert!(image.run_steps().iter().any(|s| s.contains(&owned) && s.ends_with(image.one("VOLUME"))));
    let listen = &image.env()["GATEFEED_LISTEN"];
    assert!(listen.ends_with(&format!(":{}", image.one("EXPOSE"))));
}

/// Where the image is built; cargo's own folder in it stays for the next time.
fn context() -> PathBuf {
    let target = binary().parent().and_then(Path::parent).unwrap().to_owned();
    target.join("docker")
}

#[test]
fn the_build_steps_make_a_binary_that_debian_can_start() {
    let (build, image) = dockerfile::stages();
    let (context, ignore) = (context(), Ignore::of(repository()));
    for stays_out in ["target", ".git", "docker", "README.md", ".env", "cmd/gatefeed/gatefeed.db"] {
        assert!(ignore.excludes(Path::new(stays_out)), "{stays_out}");
    }
    assert_eq!(build.all("COPY"), [". ."]);
    context::empty(&context);
    ignore.copy(repository(), &context);
    for step in build.run_steps() {
        let mut shell = Command::new("sh");
        shell.args(["-c", &step]).current_dir(&context).envs(QUICK).env("CARGO_TARGET_DIR", "target");
        output(&mut shell);
    }
    let copied = image.one("COPY").strip_prefix("--from=build ").and_then(|c| c.split_once(' ')).unwrap().0;
    let built = context.join(copied.strip_prefix(build.one("WORKDIR")).unwrap().trim_start_matches('/'));
    assert!(output(Command::new(&built).arg("--version")).starts_with("gatefeed "));
    for line in output(Command::new("ldd").arg(&built)).lines() {
        let name = line.split_whitespace().next().unwrap();
        let is_loader = name.contains("/ld-linux-");
        assert!(is_loader || LIBRARIES.contains(&name), "the image has no {name}");
    }
}

/// As people look, in a container: `docker compose exec watcher gatefeed status`.
fn complete_partitions(image: &Image, env: &Env) -> u64 {
    let status = image.output(&["gatefeed", "status", "--json"], env).unwrap();
    let feeds: serde_json::Value = serde_json::from_str(&status).unwrap();
    feeds[0]["partitions"]["complete"].as_u64().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_image_opens_sqlite_is_healthy_delivers_and_stops() {
    let image = Image::lay_out();
    let ledger = Ledger::start(&[0, 1], Duration::ZERO).await;
    let listen = format!("0.0.0.0:{}", free_port());
    let env = Env::from([("GATEFEED_LISTEN".into(), listen), ("GATEFEED_TARGET".into(), ledger.url())]);
    assert!(!image.is_healthy(&env), "nothing runs");
    let mut container = image.start(None, &env);
    eventually("the container is healthy", || {
        assert!(container.is_running(), "it has ended");
        image.is_healthy(&env)
    })
    .await;
    let file = image.path("/data/gatefeed.db");
    assert_eq!(fs::metadata(&file).unwrap().uid(), image.expected_owner());
    let sql = "INSERT INTO gatefeed_partitions (id) VALUES ('p'); \
               INSERT INTO gatefeed_items (partition_id, data) VALUES ('p', '{}'), ('p', '{}')";
    image.output(&["sqlite3", "-cmd", ".timeout 20000", "gatefeed.db", sql], &env).unwrap();
    let status = "SELECT status FROM gatefeed_partitions";
    let status = ["sqlite3", "-cmd", ".timeout 20000", "gatefeed.db", status];
    eventually("it is complete", || image.output(&status, &env) == Ok("complete".into())).await;
    assert_eq!(ledger.len(), 4);
    assert_eq!(complete_partitions(&image, &env), 1);
    assert_eq!(image.stage.one("STOPSIGNAL"), "SIGTERM");
    container.signal(Signal::TERM);
    assert_eq!(container.ended().await.code(), Some(0), "{}", container.log());
    assert!(!image.is_healthy(&env), "it has stopped");
}
