//! What the handle's calls do, on the first core: starting, accepting, adding and removing targets, looking at
//! sessions, ending. It moves no data.

use super::config::{Counters, IscsiServerConfig, SessionInfo, TargetSpec, TargetStats};
use super::error::{Error, ErrorKind, Result};
use super::limits::{ACCEPT_PAUSE, LOGIN_ROOM_INTERVAL, REMOVE_GRACE};
use super::link::{Link, serve};
use super::registrar::Registrar;
use super::room::{self, NextLook};
use super::state::{CoreState, LocalTarget, Shared, Target, TargetId, closed, on_core};
use super::wait::{Either, race};
use crate::scsi::{ByteCount, LogicalUnit, LuConfig, Threshold};
use atoll_reactor::net::{DetachedStream, TcpListener};
use atoll_reactor::{CoreHandle, sleep, spawn_detached, timeout};
use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

/// Listens, makes every core's part and the targets, and only then accepts. On the first core.
pub(super) async fn start(
    cores: Vec<CoreHandle>,
    mut config: IscsiServerConfig,
    targets: Vec<TargetSpec>,
) -> Result<Arc<Shared>> {
    let listener = TcpListener::bind(config.listen).map_err(|error| {
        let text = format!("cannot listen for iSCSI on {}", config.listen);
        Error::with_source(ErrorKind::Io, text, error)
    })?;
    let bound = listener.local_addr();
    for portal in config
        .advertise
        .iter_mut()
        .filter(|portal| portal.port() == 0)
    {
        portal.set_port(bound.port());
    }
    let shared = Shared::new(config, cores, bound);
    let first = CoreState::install(shared.clone(), 0);
    for core in 1..shared.cores.len() {
        let on_that_core = shared.clone();
        let installed = shared.cores[core]
            .call(move || async move { drop(CoreState::install(on_that_core, core)) })
            .await;
        if let Err(error) = installed {
            uninstall(&shared, core).await;
            let text = format!("core {} cannot serve iSCSI", shared.cores[core].id());
            return Err(Error::with_source(ErrorKind::Busy, text, error));
        }
    }
    for spec in targets {
        if let Err(error) = add_target(first.clone(), spec).await {
            uninstall(&shared, shared.cores.len()).await;
            return Err(error);
        }
    }
    spawn_detached(accept(first, listener));
    Ok(shared)
}

/// Takes the parts of the first `cores` cores away.
async fn uninstall(shared: &Arc<Shared>, cores: usize) {
    for core in (0..cores).rev() {
        // A core that has stopped has no part any more.
        let _ = on_core(shared, core, |state| async move { state.uninstall() }).await;
    }
}

fn registrar(first: &CoreState) -> Result<&Registrar> {
    first.registrar.as_ref().ok_or_else(closed)
}

async fn accept(first: Rc<CoreState>, listener: TcpListener) {
    let Some(registrar) = &first.registrar else {
        return;
    };
    let shared = &first.shared;
    loop {
        if registrar.closing.get() {
            return;
        }
        if !shared.may_accept() {
            // More wait in the listener's queue until some have logged in, or were too slow.
            drop_slow_logins(shared).await;
            sleep(LOGIN_ROOM_INTERVAL).await;
            continue;
        }
        let closing = || registrar.closing.get().then_some(());
        let stop = first.changed.until(closing);
        match race(listener.accept(), stop).await {
            Either::Second(()) => return,
            Either::First(Ok((stream, peer))) => {
                tracing::debug!(%peer, "connected");
                hand_over(shared, stream);
            }
            Either::First(Err(error)) => {
                tracing::error!(%error, listen = %shared.listen, "accepting iSCSI connections failed");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn drop_slow_logins(shared: &Arc<Shared>) {
    for core in 0..shared.cores.len() {
        // A core that has stopped serves none.
        let _ = on_core(shared, core, |state| async move {
            for link in state.links_of(None) {
                link.drop_slow_login();
            }
        })
        .await;
    }
}

/// To the core that serves the fewest.
fn hand_over(shared: &Arc<Shared>, stream: DetachedStream) {
    let (core, place, login) = shared.admit();
    let there = shared.clone();
    let handed = shared.cores[core].spawn(move || async move {
        if let Some(state) = CoreState::of(&there) {
            serve(state, stream, place, login).await;
        }
    });
    if let Err(error) = handed {
        tracing::warn!(%error, "a connection is refused");
    }
}

/// Makes a target of a volume. Fails if the name is taken or the description is wrong.
pub(super) async fn add_target(first: Rc<CoreState>, spec: TargetSpec) -> Result<()> {
    let registrar = registrar(&first)?;
    let percent = first.shared.config.low_space;
    let threshold = room::threshold(&spec.volume, spec.block_size, percent).await;
    let iqn = spec.iqn.clone();
    if registrar.closing.get() {
        return Err(closed());
    }
    if registrar.removing.borrow().contains(&iqn) {
        let text = format!("target {iqn} is just being removed; try again");
        return Err(Error::new(ErrorKind::Busy, text));
    }
    if first.targets.borrow().contains_key(&iqn) {
        let text = format!("target {iqn} is served already");
        return Err(Error::new(ErrorKind::AlreadyExists, text));
    }
    let target = Arc::new(make_target(spec, threshold)?);
    // First here, so that a second one of that name is refused.
    for core in 0..first.shared.cores.len() {
        let target = target.clone();
        on_core(&first.shared, core, move |state| async move {
            let local = LocalTarget {
                held: Cell::new(0),
                counters: RefCell::default(),
                target,
            };
            let name = local.target.iqn.clone();
            state.targets.borrow_mut().insert(name, Rc::new(local));
        })
        .await?;
    }
    Ok(())
}

fn make_target(spec: TargetSpec, threshold: Option<Threshold>) -> Result<Target> {
    let wrong = |error: crate::scsi::ConfigError| {
        Error::with_source(ErrorKind::Invalid, format!("target {}", spec.iqn), error)
    };
    if spec.iqn != spec.iqn.to_ascii_lowercase() {
        let text = format!("target name {} must be in lower case", spec.iqn);
        return Err(Error::new(ErrorKind::Invalid, text));
    }
    let size = ByteCount(spec.volume.size());
    let mut config = LuConfig::new(
        spec.resource,
        spec.iqn.clone(),
        spec.block_size,
        spec.block_size.whole_blocks(size),
        spec.object_size,
    );
    config.read_only = spec.read_only;
    config.threshold = threshold;
    Ok(Target {
        id: TargetId::fresh(),
        unit: LogicalUnit::new(config).map_err(wrong)?,
        iqn: spec.iqn,
        volume: spec.volume,
        next_look: NextLook::default(),
    })
}

fn target_named(first: &CoreState, iqn: &str) -> Result<Rc<LocalTarget>> {
    let target = first.targets.borrow().get(iqn).cloned();
    target.ok_or_else(|| {
        let text = format!("no target {iqn} is served");
        Error::new(ErrorKind::NotFound, text)
    })
}

/// Ends a target with its sessions and all that they had begun.
pub(super) async fn remove_target(first: Rc<CoreState>, iqn: String) -> Result<()> {
    let registrar = registrar(&first)?;
    let target = target_named(&first, &iqn)?.target.id;
    registrar.removing.borrow_mut().insert(iqn.clone());
    let ended = end_target(&first, target, iqn.clone()).await;
    registrar.removing.borrow_mut().remove(&iqn);
    ended
}

async fn end_target(first: &Rc<CoreState>, target: TargetId, iqn: String) -> Result<()> {
    let seconds = Link::logout_seconds(REMOVE_GRACE);
    for core in 0..first.shared.cores.len() {
        let iqn = iqn.clone();
        on_core(&first.shared, core, move |state| async move {
            state.targets.borrow_mut().remove(&iqn);
            for link in state.links_of(Some(target)) {
                link.request_logout(seconds);
            }
        })
        .await?;
    }
    wait_for_links(&first.shared, Some(target)).await
}

/// Until no connection uses the target, or there is none at all.
async fn wait_for_links(shared: &Arc<Shared>, target: Option<TargetId>) -> Result<()> {
    for core in 0..shared.cores.len() {
        on_core(shared, core, move |state| async move {
            state.without_links_of(target).await;
        })
        .await?;
    }
    Ok(())
}

/// The volume has another size: initiators are told.
pub(super) fn capacity_changed(first: &CoreState, iqn: &str) -> Result<()> {
    let target = target_named(first, iqn)?.target.clone();
    let size = ByteCount(target.volume.size());
    let blocks = target.unit.config().block_size.whole_blocks(size);
    target
        .unit
        .set_capacity(blocks)
        .map_err(|error| Error::with_source(ErrorKind::Invalid, format!("target {iqn}"), error))
}

/// All sessions in full feature phase.
pub(super) async fn sessions(first: Rc<CoreState>) -> Result<Vec<SessionInfo>> {
    let mut all = Vec::new();
    for core in 0..first.shared.cores.len() {
        let here = on_core(&first.shared, core, |state| async move {
            let links = state.links_of(None);
            links
                .iter()
                .filter_map(|link| link.info())
                .collect::<Vec<_>>()
        });
        all.extend(here.await?);
    }
    all.sort_by_key(|session| session.tsih);
    Ok(all)
}

/// Bytes held for commands, by core.
pub(super) async fn command_memory(first: Rc<CoreState>) -> Result<Vec<usize>> {
    let mut all = Vec::new();
    for core in 0..first.shared.cores.len() {
        let here = on_core(&first.shared, core, |state| async move {
            state.links_of(None).iter().map(|link| link.settle()).sum()
        });
        all.push(here.await?);
    }
    Ok(all)
}

/// What was done to a target so far.
pub(super) async fn target_stats(first: Rc<CoreState>, iqn: String) -> Result<TargetStats> {
    let id = target_named(&first, &iqn)?.target.id;
    let mut stats = TargetStats {
        iqn: iqn.clone(),
        sessions: 0,
        counters: Counters::default(),
    };
    for core in 0..first.shared.cores.len() {
        let iqn = iqn.clone();
        let (sessions, counters) = on_core(&first.shared, core, move |state| async move {
            let links = state.links_of(Some(id));
            let sessions = links.iter().filter(|link| link.info().is_some()).count();
            let target = state.targets.borrow().get(&iqn).cloned();
            let counters = target.map(|target| *target.counters.borrow());
            (sessions, counters.unwrap_or_default())
        })
        .await?;
        stats.sessions += sessions;
        stats.counters.add(&counters);
    }
    Ok(stats)
}

/// Ends the server: sessions are asked to log out and have `grace` for it, then they are dropped. All commands have
/// ended at the volumes when it returns.
pub(super) async fn shutdown(first: Rc<CoreState>, grace: Duration) -> Result<()> {
    let registrar = registrar(&first)?;
    registrar.closing.set(true);
    first.changed.notify();
    let shared = &first.shared;
    if !grace.is_zero() {
        let seconds = Link::logout_seconds(grace);
        for_all_links(shared, move |link| link.request_logout(seconds)).await?;
        let left = timeout(grace, wait_for_links(shared, None)).await;
        if let Ok(done) = left {
            done?;
        }
    }
    for_all_links(shared, |link| link.drop_session()).await?;
    wait_for_links(shared, None).await?;
    uninstall(shared, shared.cores.len()).await;
    Ok(())
}

async fn for_all_links(
    shared: &Arc<Shared>,
    act: impl Fn(&Rc<Link>) + Clone + Send + 'static,
) -> Result<()> {
    for core in 0..shared.cores.len() {
        let act = act.clone();
        on_core(shared, core, move |state| async move {
            state.links_of(None).iter().for_each(act);
        })
        .await?;
    }
    Ok(())
}
