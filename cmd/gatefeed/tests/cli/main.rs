//! The binary as people meet it: a process with arguments, an environment, two streams and an exit code.
#![allow(clippy::unwrap_used, reason = "a test states what it expects by unwrapping")]

mod acting;
mod blobs;
mod config;
mod database;
mod demo;
mod errors;
mod help;
mod lists;
mod pages;
mod place;
mod run;
mod spreading;
mod watch;
