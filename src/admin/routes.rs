//! The routes of the admin API and their description in OpenAPI. Each handler only takes a request
//! apart and puts the answer together; `service` decides.

mod snapshots;

use axum::Router;
use axum::body::to_bytes;
use axum::extract::{FromRequest, FromRequestParts, Path, Query, Request, State};
use axum::http::StatusCode;
use axum::http::request::Parts;
use axum::response::{IntoResponse, Json, Response};
use axum::routing::{get, post};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::time::timeout;
use utoipa::{IntoParams, OpenApi};

use super::server::{MAX_REQUEST_BODY, REQUEST_BODY_TIMEOUT};
use super::service::{Made, Service};
use crate::api::{
    AddExport, AddPool, CreateVolume, Export, Pool, Removed, RenameVolume, ResizeVolume, Stats,
    Status, Volume,
};
use crate::error::{Error, ErrorKind, Result};
use crate::name::ResourceName;

/// What the daemon says about its own API.
#[derive(OpenApi)]
#[openapi(
    info(
        title = "Atoll admin API",
        description = "Volumes, snapshots, exports and pools of one Atoll daemon, over its admin socket."
    ),
    paths(
        openapi,
        status,
        stats,
        snapshots::list_volumes,
        create_volume,
        show_volume,
        delete_volume,
        resize_volume,
        rename_volume,
        snapshots::take_snapshot,
        snapshots::take_group,
        snapshots::clone_snapshot,
        snapshots::roll_back,
        snapshots::flatten,
        snapshots::copy_volume,
        snapshots::protect,
        snapshots::tree,
        snapshots::gc_status,
        snapshots::gc_run,
        list_exports,
        add_export,
        remove_export,
        list_pools,
        add_pool,
        show_pool,
        remove_pool,
        super::data::changes,
        super::data::read_data,
        super::data::write_data,
        super::data::zero_data,
        super::data::begin_import,
        super::data::checkpoint_import,
        super::data::finish_import
    )
)]
pub struct ApiDoc;

/// All routes.
pub fn router(service: Service) -> Router {
    Router::new()
        .route("/openapi.json", get(openapi))
        .route("/v1/status", get(status))
        .route("/v1/stats", get(stats))
        .route(
            "/v1/volumes",
            get(snapshots::list_volumes).post(create_volume),
        )
        .route("/v1/volumes/{name}", get(show_volume).delete(delete_volume))
        .route("/v1/volumes/{name}/resize", post(resize_volume))
        .route("/v1/volumes/{name}/rename", post(rename_volume))
        .route(
            "/v1/volumes/{name}/snapshot",
            post(snapshots::take_snapshot),
        )
        .route("/v1/volumes/{name}/clone", post(snapshots::clone_snapshot))
        .route("/v1/volumes/{name}/rollback", post(snapshots::roll_back))
        .route("/v1/volumes/{name}/flatten", post(snapshots::flatten))
        .route("/v1/volumes/{name}/copy", post(snapshots::copy_volume))
        .route("/v1/volumes/{name}/protect", post(snapshots::protect))
        .route("/v1/snapshots", post(snapshots::take_group))
        .route("/v1/tree", get(snapshots::tree))
        .route("/v1/gc", get(snapshots::gc_status).post(snapshots::gc_run))
        .route("/v1/exports", get(list_exports).post(add_export))
        .route("/v1/exports/{name}", axum::routing::delete(remove_export))
        .route("/v1/pools", get(list_pools).post(add_pool))
        .route("/v1/pools/{name}", get(show_pool).delete(remove_pool))
        .merge(super::data::routes())
        .fallback(async |request: Request| no_route(&request, "there is no such resource"))
        .method_not_allowed_fallback(async |request: Request| {
            no_route(&request, "it does not take this method")
        })
        .with_state(service)
}

fn no_route(request: &Request, why: &str) -> Error {
    Error::not_found(format!(
        "{} {}: {why}",
        request.method(),
        request.uri().path()
    ))
    .hint("GET /openapi.json describes the API")
}

impl IntoResponse for Error {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.kind.http_status());
        (
            status.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR),
            Json(self),
        )
            .into_response()
    }
}

impl<T: Serialize> IntoResponse for Made<T> {
    fn into_response(self) -> Response {
        match self {
            Self::New(item) => (StatusCode::CREATED, Json(item)).into_response(),
            Self::Unchanged(item) => (StatusCode::OK, Json(item)).into_response(),
        }
    }
}

/// A request's body of JSON, whatever its content type says.
pub(super) struct Body<T>(pub(super) T);

impl<S: Sync, T: DeserializeOwned> FromRequest<S> for Body<T> {
    type Rejection = Error;

    async fn from_request(request: Request, _: &S) -> Result<Self> {
        let bytes = timeout(
            REQUEST_BODY_TIMEOUT,
            to_bytes(request.into_body(), MAX_REQUEST_BODY),
        )
        .await
        .map_err(|_| {
            Error::new(
                ErrorKind::Unavailable,
                "the request's body did not come in time",
            )
        })?
        .map_err(|e| {
            Error::invalid(format!(
                "the request's body: {e}, at most {MAX_REQUEST_BODY} bytes"
            ))
        })?;
        serde_json::from_slice(&bytes)
            .map(Self)
            .map_err(|e| Error::invalid(format!("the request's body: {e}")))
    }
}

/// The `{name}` of the path.
pub(super) struct Name(pub(super) ResourceName);

impl<S: Send + Sync> FromRequestParts<S> for Name {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self> {
        let Path(name) = Path::<String>::from_request_parts(parts, state)
            .await
            .map_err(|e| Error::invalid(format!("the path: {}", e.body_text())))?;
        ResourceName::try_from(name).map(Self)
    }
}

/// `?if_exists=true`: nothing there to remove is no error.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct IfExists {
    /// What is not there is an answer, no error.
    #[serde(default)]
    if_exists: bool,
}

type QueryResult<T> = std::result::Result<Query<T>, axum::extract::rejection::QueryRejection>;

impl IfExists {
    fn from(query: QueryResult<Self>) -> Result<bool> {
        query
            .map(|Query(query)| query.if_exists)
            .map_err(|e| Error::invalid(e.body_text()))
    }
}

#[utoipa::path(get, path = "/openapi.json", responses((status = 200, description = "This description")))]
async fn openapi() -> Json<utoipa::openapi::OpenApi> {
    Json(ApiDoc::openapi())
}

#[utoipa::path(get, path = "/v1/status", responses((status = 200, body = Status), (status = "default", body = Error)))]
async fn status(State(service): State<Service>) -> Result<Json<Status>> {
    service.control().status().await.map(Json)
}

#[utoipa::path(get, path = "/v1/stats", responses((status = 200, body = Stats), (status = "default", body = Error)))]
async fn stats(State(service): State<Service>) -> Result<Json<Stats>> {
    service.control().stats().await.map(Json)
}

#[utoipa::path(post, path = "/v1/volumes", request_body = CreateVolume, responses(
    (status = 201, body = Volume), (status = 200, body = Volume, description = "It was there already"),
    (status = "default", body = Error)))]
async fn create_volume(
    State(service): State<Service>,
    Body(request): Body<CreateVolume>,
) -> Result<Made<Volume>> {
    service.create_volume(request).await
}

#[utoipa::path(get, path = "/v1/volumes/{name}", params(("name" = String, Path)),
    responses((status = 200, body = Volume), (status = "default", body = Error)))]
async fn show_volume(State(service): State<Service>, Name(name): Name) -> Result<Json<Volume>> {
    service.control().volume(name).await.map(Json)
}

#[utoipa::path(delete, path = "/v1/volumes/{name}", params(("name" = String, Path), IfExists),
    responses((status = 200, body = Removed), (status = "default", body = Error)))]
async fn delete_volume(
    State(service): State<Service>,
    Name(name): Name,
    query: QueryResult<IfExists>,
) -> Result<Json<Removed>> {
    service
        .delete_volume(name, IfExists::from(query)?)
        .await
        .map(Json)
}

#[utoipa::path(post, path = "/v1/volumes/{name}/resize", params(("name" = String, Path)), request_body = ResizeVolume,
    responses((status = 200, body = Volume), (status = "default", body = Error)))]
async fn resize_volume(
    State(service): State<Service>,
    Name(name): Name,
    Body(request): Body<ResizeVolume>,
) -> Result<Json<Volume>> {
    service.resize_volume(name, request.size).await.map(Json)
}

#[utoipa::path(post, path = "/v1/volumes/{name}/rename", params(("name" = String, Path)), request_body = RenameVolume,
    responses((status = 200, body = Volume), (status = "default", body = Error)))]
async fn rename_volume(
    State(service): State<Service>,
    Name(name): Name,
    Body(request): Body<RenameVolume>,
) -> Result<Json<Volume>> {
    service.rename_volume(name, request).await.map(Json)
}

#[utoipa::path(get, path = "/v1/exports", responses((status = 200, body = Vec<Export>), (status = "default", body = Error)))]
async fn list_exports(State(service): State<Service>) -> Result<Json<Vec<Export>>> {
    service.control().exports().await.map(Json)
}

#[utoipa::path(post, path = "/v1/exports", request_body = AddExport, responses(
    (status = 201, body = Export), (status = 200, body = Export, description = "It was there already"),
    (status = "default", body = Error)))]
async fn add_export(
    State(service): State<Service>,
    Body(request): Body<AddExport>,
) -> Result<Made<Export>> {
    service.add_export(request).await
}

#[utoipa::path(delete, path = "/v1/exports/{name}", params(("name" = String, Path), IfExists),
    responses((status = 200, body = Removed), (status = "default", body = Error)))]
async fn remove_export(
    State(service): State<Service>,
    Name(name): Name,
    query: QueryResult<IfExists>,
) -> Result<Json<Removed>> {
    service
        .remove_export(name, IfExists::from(query)?)
        .await
        .map(Json)
}

#[utoipa::path(get, path = "/v1/pools", responses((status = 200, body = Vec<Pool>), (status = "default", body = Error)))]
async fn list_pools(State(service): State<Service>) -> Result<Json<Vec<Pool>>> {
    service.control().pools().await.map(Json)
}

#[utoipa::path(post, path = "/v1/pools", request_body = AddPool, responses(
    (status = 201, body = Pool), (status = 200, body = Pool, description = "It was there already"),
    (status = "default", body = Error)))]
async fn add_pool(
    State(service): State<Service>,
    Body(request): Body<AddPool>,
) -> Result<Made<Pool>> {
    service.add_pool(request).await
}

#[utoipa::path(get, path = "/v1/pools/{name}", params(("name" = String, Path)),
    responses((status = 200, body = Pool), (status = "default", body = Error)))]
async fn show_pool(State(service): State<Service>, Name(name): Name) -> Result<Json<Pool>> {
    service.control().pool(name).await.map(Json)
}

#[utoipa::path(delete, path = "/v1/pools/{name}", params(("name" = String, Path), IfExists),
    responses((status = 200, body = Removed), (status = "default", body = Error)))]
async fn remove_pool(
    State(service): State<Service>,
    Name(name): Name,
    query: QueryResult<IfExists>,
) -> Result<Json<Removed>> {
    service
        .remove_pool(name, IfExists::from(query)?)
        .await
        .map(Json)
}
