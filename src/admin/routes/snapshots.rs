//! Routes of snapshots, clones, long verbs, the tree and the garbage collector.

use axum::extract::{Query, State};
use axum::response::Json;
use serde::Deserialize;
use utoipa::IntoParams;

use super::{Body, Name, QueryResult};
use crate::admin::service::{Made, Service};
use crate::api::{
    AskTree, CloneSnapshot, CopyVolume, Copying, Flatten, Flattening, GcStatus, ListVolumes,
    PAGE_LIMIT, Protect, RollBack, TREE_PAGE_LIMIT, TakeGroup, TakeSnapshot, TreePage, Volume,
    VolumeKind, VolumePage, check_limit,
};
use crate::error::{Error, Result};
use crate::name::ResourceName;

/// `?kind=snapshot&after=NAME&limit=100`.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct ListQuery {
    /// Only resources of this kind.
    kind: Option<VolumeKind>,
    /// Only those whose names come after this one: `next` of the page before.
    #[param(value_type = Option<String>)]
    after: Option<ResourceName>,
    /// Most of one page, 1 to 1000. 1000 unless given.
    limit: Option<usize>,
}

/// `?name=NAME&after=7&limit=100`.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct TreeQuery {
    /// Only the tree that this volume or snapshot is in.
    #[param(value_type = Option<String>)]
    name: Option<ResourceName>,
    /// Only nodes with higher numbers: `next` of the page before.
    after: Option<u64>,
    /// Most of one page, 1 to 10000. 10000 unless given.
    limit: Option<usize>,
}

fn query<T>(query: QueryResult<T>) -> Result<T> {
    query
        .map(|Query(query)| query)
        .map_err(|e| Error::invalid(e.body_text()))
}

#[utoipa::path(get, path = "/v1/volumes", params(ListQuery),
    responses((status = 200, body = VolumePage), (status = "default", body = Error)))]
pub async fn list_volumes(
    State(service): State<Service>,
    asked: QueryResult<ListQuery>,
) -> Result<Json<VolumePage>> {
    let ListQuery { kind, after, limit } = query(asked)?;
    let limit = check_limit(limit, PAGE_LIMIT)?;
    let ask = ListVolumes { kind, after, limit };
    service.control().volumes(ask).await.map(Json)
}

#[utoipa::path(post, path = "/v1/volumes/{name}/snapshot", params(("name" = String, Path)), request_body = TakeSnapshot,
    responses((status = 201, body = Volume), (status = 200, body = Volume, description = "It was there already"),
    (status = "default", body = Error)))]
pub async fn take_snapshot(
    State(service): State<Service>,
    Name(name): Name,
    Body(request): Body<TakeSnapshot>,
) -> Result<Made<Volume>> {
    service.take_snapshot(name, request).await
}

#[utoipa::path(post, path = "/v1/snapshots", request_body = TakeGroup, responses(
    (status = 201, body = Vec<Volume>), (status = 200, body = Vec<Volume>, description = "They were there already"),
    (status = "default", body = Error)))]
pub async fn take_group(
    State(service): State<Service>,
    Body(request): Body<TakeGroup>,
) -> Result<Made<Vec<Volume>>> {
    service.take_group(request).await
}

#[utoipa::path(post, path = "/v1/volumes/{name}/clone", params(("name" = String, Path, description = "The snapshot's")),
    request_body = CloneSnapshot, responses(
    (status = 201, body = Volume), (status = 200, body = Volume, description = "It was there already"),
    (status = "default", body = Error)))]
pub async fn clone_snapshot(
    State(service): State<Service>,
    Name(name): Name,
    Body(request): Body<CloneSnapshot>,
) -> Result<Made<Volume>> {
    service.clone_snapshot(name, request).await
}

#[utoipa::path(post, path = "/v1/volumes/{name}/rollback", params(("name" = String, Path)), request_body = RollBack,
    responses((status = 200, body = Volume), (status = "default", body = Error)))]
pub async fn roll_back(
    State(service): State<Service>,
    Name(name): Name,
    Body(request): Body<RollBack>,
) -> Result<Json<Volume>> {
    let rolled_back = service.control().roll_back(name, request.snapshot);
    rolled_back.await.map(Json)
}

#[utoipa::path(post, path = "/v1/volumes/{name}/flatten", params(("name" = String, Path)), request_body = Flatten,
    responses((status = 200, body = Flattening, description = "A step is done"), (status = "default", body = Error)))]
pub async fn flatten(
    State(service): State<Service>,
    Name(name): Name,
    Body(request): Body<Flatten>,
) -> Result<Json<Flattening>> {
    let step = service.control().flatten(name, request.from);
    step.await.map(Json)
}

#[utoipa::path(post, path = "/v1/volumes/{name}/copy", params(("name" = String, Path, description = "The source's")),
    request_body = CopyVolume,
    responses((status = 200, body = Copying, description = "A step is done"), (status = "default", body = Error)))]
pub async fn copy_volume(
    State(service): State<Service>,
    Name(name): Name,
    Body(request): Body<CopyVolume>,
) -> Result<Json<Copying>> {
    let step = service.control().copy_volume(name, request);
    step.await.map(Json)
}

#[utoipa::path(post, path = "/v1/volumes/{name}/protect", params(("name" = String, Path)), request_body = Protect,
    responses((status = 200, body = Volume), (status = "default", body = Error)))]
pub async fn protect(
    State(service): State<Service>,
    Name(name): Name,
    Body(request): Body<Protect>,
) -> Result<Json<Volume>> {
    let protected = service.control().protect(name, request.protected);
    protected.await.map(Json)
}

#[utoipa::path(get, path = "/v1/tree", params(TreeQuery),
    responses((status = 200, body = TreePage), (status = "default", body = Error)))]
pub async fn tree(
    State(service): State<Service>,
    asked: QueryResult<TreeQuery>,
) -> Result<Json<TreePage>> {
    let TreeQuery { name, after, limit } = query(asked)?;
    let limit = check_limit(limit, TREE_PAGE_LIMIT)?;
    let ask = AskTree { name, after, limit };
    service.control().tree(ask).await.map(Json)
}

#[utoipa::path(get, path = "/v1/gc", responses((status = 200, body = GcStatus), (status = "default", body = Error)))]
pub async fn gc_status(State(service): State<Service>) -> Result<Json<GcStatus>> {
    service.control().gc_status().await.map(Json)
}

#[utoipa::path(post, path = "/v1/gc", responses(
    (status = 200, body = GcStatus, description = "It has begun"), (status = "default", body = Error)))]
pub async fn gc_run(State(service): State<Service>) -> Result<Json<GcStatus>> {
    service.control().gc_run().await.map(Json)
}
