//! The routes that move content of resources: bytes, at most 1 MiB each, and what frames them.
//! Not the routes of JSON verbs.

use axum::Router;
use axum::body::{Bytes, to_bytes};
use axum::extract::{FromRequestParts, Query, Request, State};
use axum::http::header::CONTENT_TYPE;
use axum::http::request::Parts;
use axum::response::{IntoResponse, Json, Response};
use axum::routing::{get, post};
use serde::de::DeserializeOwned;
use tokio::time::timeout;

use super::routes::{Body, Name};
use super::server::REQUEST_BODY_TIMEOUT;
use super::service::Service;
use crate::api::{
    BeginImport, ChangePage, ChangesQuery, CheckpointImport, DataRange, FinishImport, ImportState,
    Imported, MAX_DATA, MAX_ZEROED,
};
use crate::error::{Error, Result};

/// Media type of content.
const BYTES: &str = "application/octet-stream";

/// All of them.
pub fn routes() -> Router<Service> {
    Router::new()
        .route("/v1/resources/{name}/changes", get(changes))
        .route(
            "/v1/resources/{name}/data",
            get(read_data).put(write_data).delete(zero_data),
        )
        .route("/v1/volumes/{name}/import", post(begin_import))
        .route(
            "/v1/volumes/{name}/import/checkpoint",
            post(checkpoint_import),
        )
        .route("/v1/volumes/{name}/import/finish", post(finish_import))
}

/// The query of a request, refused in words of ours.
pub(super) struct Asked<T>(T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for Asked<T> {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self> {
        let query = Query::<T>::from_request_parts(parts, state).await;
        query
            .map(|Query(query)| Self(query))
            .map_err(|e| Error::invalid(e.body_text()))
    }
}

#[utoipa::path(get, path = "/v1/resources/{name}/changes", params(("name" = String, Path), ChangesQuery),
    responses((status = 200, body = ChangePage), (status = "default", body = Error)))]
pub(super) async fn changes(
    State(service): State<Service>,
    Name(name): Name,
    Asked(query): Asked<ChangesQuery>,
) -> Result<Json<ChangePage>> {
    query.check()?;
    service.control().changes(name, query).await.map(Json)
}

#[utoipa::path(get, path = "/v1/resources/{name}/data", params(("name" = String, Path), DataRange), responses(
    (status = 200, content_type = BYTES, description = "Content"), (status = "default", body = Error)))]
pub(super) async fn read_data(
    State(service): State<Service>,
    Name(name): Name,
    Asked(range): Asked<DataRange>,
) -> Result<Response> {
    range.check(MAX_DATA)?;
    let bytes = service.control().read_data(name, range).await?;
    Ok(([(CONTENT_TYPE, BYTES)], bytes).into_response())
}

#[utoipa::path(put, path = "/v1/resources/{name}/data", params(("name" = String, Path), DataRange),
    request_body(content_type = BYTES, description = "Content, as long as said"), responses(
    (status = 200, description = "Written; durable with the next checkpoint"), (status = "default", body = Error)))]
pub(super) async fn write_data(
    State(service): State<Service>,
    Name(name): Name,
    Asked(range): Asked<DataRange>,
    request: Request,
) -> Result<()> {
    range.check(MAX_DATA)?;
    let bytes = content(request).await?;
    if bytes.len() as u64 != range.length {
        return Err(Error::invalid(format!(
            "{} bytes came, {} were announced",
            bytes.len(),
            range.length
        )));
    }
    service.control().write_data(name, range, bytes).await
}

async fn content(request: Request) -> Result<Bytes> {
    let bytes = to_bytes(request.into_body(), MAX_DATA as usize);
    timeout(REQUEST_BODY_TIMEOUT, bytes)
        .await
        .map_err(|_| Error::unavailable("the request's body did not come in time"))?
        .map_err(|e| Error::invalid(format!("the request's body: {e}, at most {MAX_DATA} bytes")))
}

#[utoipa::path(delete, path = "/v1/resources/{name}/data", params(("name" = String, Path), DataRange), responses(
    (status = 200, description = "It reads as zeros; durable with the next checkpoint"), (status = "default", body = Error)))]
pub(super) async fn zero_data(
    State(service): State<Service>,
    Name(name): Name,
    Asked(range): Asked<DataRange>,
) -> Result<()> {
    range.check(MAX_ZEROED)?;
    service.control().zero_data(name, range).await
}

#[utoipa::path(post, path = "/v1/volumes/{name}/import", params(("name" = String, Path)), request_body = BeginImport,
    responses((status = 200, body = ImportState), (status = "default", body = Error)))]
pub(super) async fn begin_import(
    State(service): State<Service>,
    Name(name): Name,
    Body(request): Body<BeginImport>,
) -> Result<Json<ImportState>> {
    service.begin_import(name, request).await.map(Json)
}

#[utoipa::path(post, path = "/v1/volumes/{name}/import/checkpoint", params(("name" = String, Path)),
    request_body = CheckpointImport, responses((status = 200, body = ImportState), (status = "default", body = Error)))]
pub(super) async fn checkpoint_import(
    State(service): State<Service>,
    Name(name): Name,
    Body(request): Body<CheckpointImport>,
) -> Result<Json<ImportState>> {
    let kept = service.control().checkpoint_import(name, request);
    kept.await.map(Json)
}

#[utoipa::path(post, path = "/v1/volumes/{name}/import/finish", params(("name" = String, Path)),
    request_body = FinishImport, responses((status = 200, body = Imported), (status = "default", body = Error)))]
pub(super) async fn finish_import(
    State(service): State<Service>,
    Name(name): Name,
    Body(request): Body<FinishImport>,
) -> Result<Json<Imported>> {
    let finished = service.control().finish_import(name, request);
    finished.await.map(Json)
}
