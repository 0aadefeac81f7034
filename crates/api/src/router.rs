//! The API as a router, and its description.

use std::sync::Arc;

use axum::{
    Json, Router,
    extract::{DefaultBodyLimit, Request},
    http::{HeaderValue, Method, Uri, header},
    middleware::{Next, from_fn, map_response},
    response::{IntoResponse, Response},
    routing::get,
};
use gatefeed_core::Store;
use utoipa::{
    Modify, OpenApi,
    openapi::security::{Http, HttpAuthScheme, SecurityScheme},
};
use utoipa_axum::{
    router::{OpenApiRouter, UtoipaMethodRouterExt},
    routes,
};
use utoipa_swagger_ui::SwaggerUi;

use crate::{
    actions,
    app::{ApiOptions, App, Inner},
    events, items, look, partitions, post,
    problem::{Problem, Wrong, no_method},
};

/// The REST API of `/v1`, its description at `/openapi.json` and pages about it at `/docs`. Of an application's own router it
/// can be a part: merge it. Every request that is not answered as its operation says is answered with problem details.
///
/// Runs in a tokio runtime, where it starts the tasks that write.
pub fn api(store: Arc<dyn Store>, options: ApiOptions) -> Router {
    let (router, description) = operations().split_for_parts();
    let pages = SwaggerUi::new("/docs").config(utoipa_swagger_ui::Config::from("/openapi.json"));
    router
        .route("/openapi.json", get(move || std::future::ready(Json(description.clone()))))
        .merge(Router::from(pages).layer(map_response(guard)))
        .layer(DefaultBodyLimit::disable())
        .layer(map_response(private))
        .method_not_allowed_fallback(no_method)
        .with_state(Inner::start(store, options))
}

/// What answers where nothing else does. Whoever mounts the API beside routes of their own may have another.
pub async fn not_found(uri: Uri) -> Response {
    Problem::not_found(format!("there is nothing at {}: /docs has what there is", uri.path())).into_response()
}

/// The description of the API, OpenAPI 3.1.
pub fn openapi() -> utoipa::openapi::OpenApi {
    operations().into_openapi()
}

fn operations() -> OpenApiRouter<App> {
    OpenApiRouter::with_openapi(Description::openapi())
        .routes(
            routes!(partitions::list_partitions, partitions::create_partition).layer(from_fn(unversioned)),
        )
        .routes(routes!(partitions::get_partition))
        .routes(routes!(look::gates))
        .routes(routes!(look::why))
        .routes(routes!(events::events))
        .routes(routes!(items::list_items, post::post_items).layer(from_fn(unversioned)))
        .routes(routes!(items::get_item))
        .routes(routes!(items::get_data))
        .routes(routes!(actions::retry))
        .routes(routes!(actions::rewind))
        .routes(routes!(actions::pause))
        .routes(routes!(actions::resume))
        .routes(routes!(actions::cancel))
        .routes(routes!(actions::seal))
        .routes(routes!(actions::advance))
        .routes(routes!(look::feeds))
        .routes(routes!(look::watchers))
}

#[derive(OpenApi)]
#[openapi(
    info(
        title = "gatefeed",
        description = "A durable fan-out and fan-in queue: partitions of items, gates, and handlers over HTTP.",
        license(name = "MIT OR Apache-2.0"),
    ),
    tags(
        (name = "partitions", description = "Folders of work"),
        (name = "items", description = "The work in them"),
        (name = "actions", description = "What operators do"),
        (name = "feeds", description = "Streams of partitions, and the watchers at work"),
    ),
    components(schemas(partitions::Envelope, Problem, Wrong)),
    security(("token" = []), ()),
    modifiers(&Tokens),
)]
struct Description;

struct Tokens;

impl Modify for Tokens {
    fn modify(&self, openapi: &mut utoipa::openapi::OpenApi) {
        let components = openapi.components.get_or_insert_default();
        components.add_security_scheme("token", SecurityScheme::Http(Http::new(HttpAuthScheme::Bearer)));
    }
}

/// Errs for a condition on what is made: it has no version to be compared.
async fn unversioned(request: Request, next: Next) -> Result<Response, Problem> {
    if request.method() == Method::POST && request.headers().contains_key(header::IF_MATCH) {
        return Err(Problem::bad_request(
            "If-Match is for the actions on a partition: nothing is added by it",
        ));
    }
    Ok(next.run(request).await)
}

/// JSON is read as nothing else, and kept by nobody on the way.
pub(crate) async fn private(mut response: Response) -> Response {
    let headers = response.headers_mut();
    let content_type = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    if content_type.is_some_and(|text| text.contains("json")) {
        headers.entry(header::X_CONTENT_TYPE_OPTIONS).or_insert(HeaderValue::from_static("nosniff"));
        headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    }
    response
}

/// No other site may frame the pages, and they run nothing that is not served here.
async fn guard(mut response: Response) -> Response {
    let policy =
        "default-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; frame-ancestors 'none'";
    let headers = [
        (header::CONTENT_SECURITY_POLICY, policy),
        (header::X_FRAME_OPTIONS, "DENY"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
    ];
    for (name, value) in headers {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response
}
