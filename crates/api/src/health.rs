//! Health: `GET /livez` (the process runs) and `GET /readyz` (the database answers, and how the targets are).

use std::{sync::Arc, time::Duration};

use axum::{
    Json, Router,
    extract::State,
    http::StatusCode,
    middleware::map_response,
    response::{IntoResponse, Response},
    routing::get,
};
use futures_util::future::BoxFuture;
use gatefeed_core::{Result, Store};
use serde::Serialize;

use crate::{problem::no_method, router::private};

/// For how long the database may keep a probe waiting.
const PING_MAX: Duration = Duration::from_secs(2);

/// How a target of deliveries is doing, for people: readiness does not depend on it, since a watcher whose
/// handler is down waits for it and restarting the watcher would not help.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct TargetHealth {
    /// Its URL, without secrets.
    pub target: String,
    /// Whether deliveries are sent to it now.
    pub ok: bool,
    /// What was found, or what is wrong.
    pub detail: String,
}

/// Asks how the targets are; bounds its own time (a probe should not take longer than a few seconds).
pub type Targets = Box<dyn Fn() -> BoxFuture<'static, Vec<TargetHealth>> + Send + Sync>;

/// What `/readyz` answers.
#[derive(Debug, Serialize)]
struct Readiness {
    ready: bool,
    database: DatabaseHealth,
    targets: Vec<TargetHealth>,
}

#[derive(Debug, Serialize)]
struct DatabaseHealth {
    ok: bool,
    detail: String,
}

/// The checks behind `/readyz`; the database is behind a function so that a test can break it.
struct Checks {
    ping: Box<dyn Fn() -> BoxFuture<'static, Result<()>> + Send + Sync>,
    targets: Targets,
}

/// `GET /livez`: 200 and "ok". `GET /readyz`: 200, or 503 while the database does not answer within two
/// seconds, with `{"ready", "database": {"ok", "detail"}, "targets": [{"target", "ok", "detail"}]}`.
pub fn health(store: Arc<dyn Store>, targets: Targets) -> Router {
    let ping = move || -> BoxFuture<'static, Result<()>> {
        let store = Arc::clone(&store);
        Box::pin(async move { store.ping().await })
    };
    Router::new()
        .route("/livez", get("ok"))
        .route("/readyz", get(readyz))
        .method_not_allowed_fallback(no_method)
        .layer(map_response(private))
        .with_state(Arc::new(Checks { ping: Box::new(ping), targets }))
}

async fn readyz(State(checks): State<Arc<Checks>>) -> Response {
    let (database, targets) = tokio::join!(database(&checks), (checks.targets)());
    let status = if database.ok { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(Readiness { ready: database.ok, database, targets })).into_response()
}

async fn database(checks: &Checks) -> DatabaseHealth {
    match tokio::time::timeout(PING_MAX, (checks.ping)()).await {
        Ok(Ok(())) => DatabaseHealth { ok: true, detail: "answers".to_owned() },
        Ok(Err(error)) => DatabaseHealth { ok: false, detail: error.to_string() },
        Err(_) => DatabaseHealth { ok: false, detail: format!("no answer within {PING_MAX:?}") },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use gatefeed_core::StoreError;
    use http_body_util::BodyExt;
    use serde_json::json;

    async fn ask(
        ping: impl Fn() -> BoxFuture<'static, Result<()>> + Send + Sync + 'static,
        targets: Vec<TargetHealth>,
    ) -> (u16, serde_json::Value) {
        let targets: Targets = Box::new(move || Box::pin(std::future::ready(targets.clone())));
        let response = readyz(State(Arc::new(Checks { ping: Box::new(ping), targets }))).await;
        let status = response.status().as_u16();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        (status, serde_json::from_slice(&body).unwrap())
    }

    #[tokio::test]
    async fn ready_while_the_database_answers_whatever_the_targets_do() {
        let down = TargetHealth { target: "http://h/".into(), ok: false, detail: "refused".into() };
        let (status, body) = ask(|| Box::pin(async { Ok(()) }), vec![down]).await;
        assert_eq!(status, 200);
        let expected = json!({
            "ready": true,
            "database": {"ok": true, "detail": "answers"},
            "targets": [{"target": "http://h/", "ok": false, "detail": "refused"}],
        });
        assert_eq!(body, expected);
    }

    #[tokio::test]
    async fn not_ready_when_the_database_is_gone() {
        let gone = || -> BoxFuture<'static, Result<()>> {
            Box::pin(async { Err(StoreError::Unavailable("connection refused".into())) })
        };
        let (status, body) = ask(gone, Vec::new()).await;
        assert_eq!((status, &body["ready"]), (503, &json!(false)));
        assert_eq!(body["database"]["detail"], "connection refused");
    }

    #[tokio::test(start_paused = true)]
    async fn a_database_that_hangs_does_not_hang_the_probe() {
        let (status, body) = ask(|| Box::pin(std::future::pending()), Vec::new()).await;
        assert_eq!(status, 503);
        assert_eq!(body["database"]["detail"], "no answer within 2s");
    }
}
