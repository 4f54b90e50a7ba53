//! What the rows of the catalogue say together: names, resources, exports, the tree of nodes,
//! counters and marks.

use super::catalogue::Catalogue;
use super::keys::{Counter, Key, Uuid};
use super::report::{FindingKind, Log};
use super::rows::{Node, Resource, ResourceKind, State};
use hashbrown::HashMap;

/// Bytes.
const SIZE_UNIT: u64 = 4096;
const MIN_VOLUME: u64 = 1 << 20;
const MAX_VOLUME: u64 = 1 << 50;

pub(super) fn check(catalogue: &mut Catalogue, log: &mut Log) {
    run_state(catalogue, log);
    pools(catalogue, log);
    names(catalogue, log);
    resources(catalogue, log);
    exports(catalogue, log);
    children(catalogue, log);
    for (number, node) in &catalogue.nodes {
        owner(catalogue, *number, node, log);
        parent(catalogue, *number, node, log);
        limits(catalogue, *number, node, log);
    }
    cycles(catalogue, log);
    currents(catalogue, log);
    counters(catalogue, log);
}

fn run_state(catalogue: &Catalogue, log: &mut Log) {
    match catalogue.run {
        None if !catalogue.is_damaged(&[0x02]) => {
            log.find(FindingKind::RunStateMissing, Key::RunState, || {
                "there is none: it is unknown whether the store was stopped cleanly".into()
            });
        }
        Some(run) if run.unclean > run.starts => {
            log.find(FindingKind::RunState, Key::RunState, || {
                format!(
                    "start {} is said to have followed an unclean stop, of {} starts",
                    run.unclean, run.starts
                )
            })
        }
        _ => {}
    }
}

fn pools(catalogue: &Catalogue, log: &mut Log) {
    let mut seen = HashMap::new();
    for (number, pool) in &catalogue.pools {
        if let Some(other) = seen.insert(pool.id, *number) {
            log.find(FindingKind::PoolShared, Key::Pool(*number), || {
                format!(
                    "pool {other} has the same UUID {}: both would name the same objects",
                    pool.id
                )
            });
        }
    }
    for pool in &catalogue.recorded {
        missing_pool(catalogue, *pool, Key::StoreRecord(*pool), log);
    }
    for pool in catalogue.marks.keys() {
        missing_pool(catalogue, *pool, Key::Mark(*pool), log);
    }
}

/// Logs it if the pool that a row belongs to does not exist.
pub(super) fn missing_pool(catalogue: &Catalogue, pool: u32, place: Key, log: &mut Log) {
    if !catalogue.pools.contains_key(&pool) && !catalogue.is_damaged(&Key::pool_row(pool)) {
        log.find(FindingKind::PoolMissing, place, || {
            format!("it belongs to pool {pool}, which the catalogue does not have")
        });
    }
}

fn names(catalogue: &Catalogue, log: &mut Log) {
    for (name, id) in &catalogue.names {
        let good = match catalogue.resources.get(id) {
            Some(resource) => resource.name == *name,
            None => catalogue.is_damaged(&Key::resource_row(*id)),
        };
        if !good {
            log.find(FindingKind::NameDangling, Key::Name(name.clone()), || {
                format!("it leads to resource {id}, which does not exist or has another name")
            });
        }
    }
    let mut seen: HashMap<&str, Uuid> = HashMap::new();
    for (id, resource) in &catalogue.resources {
        if let Some(other) = seen.insert(&resource.name, *id) {
            log.find(FindingKind::NameShared, Key::Resource(*id), || {
                format!("resource {other} has the name {:?} too", resource.name)
            });
        } else if !catalogue.names.contains_key(&resource.name)
            && !catalogue.is_damaged(&Key::name_row(&resource.name))
        {
            log.find(FindingKind::NameMissing, Key::Resource(*id), || {
                format!(
                    "its name {:?} is not in the table of names: it cannot be found by it",
                    resource.name
                )
            });
        }
    }
    // A name that leads to another resource is reported by that name or as shared.
}

fn resources(catalogue: &mut Catalogue, log: &mut Log) {
    let mut owners = std::collections::BTreeMap::new();
    for (id, resource) in &catalogue.resources {
        missing_pool(catalogue, resource.pool, Key::Resource(*id), log);
        size(*id, resource, log);
        match catalogue.nodes.get(&resource.node) {
            Some(node) => fits_node(*id, resource, node, log),
            None if catalogue.is_damaged(&Key::node_row(resource.node)) => {}
            None => log.find(FindingKind::NodeMissing, Key::Resource(*id), || {
                format!(
                    "its node {} does not exist: its data cannot be found",
                    resource.node
                )
            }),
        }
        match owners.get(&resource.node) {
            None => {
                owners.insert(resource.node, *id);
            }
            Some(other) => log.find(FindingKind::NodeShared, Key::Resource(*id), || {
                format!(
                    "its node {} is resource {other}'s too: each changes the other's data",
                    resource.node
                )
            }),
        }
    }
    catalogue.owners = owners;
}

fn size(id: Uuid, resource: &Resource, log: &mut Log) {
    let bytes = resource.size;
    if !bytes.is_multiple_of(SIZE_UNIT) {
        log.find(FindingKind::ResourceSize, Key::Resource(id), || {
            format!("its size of {bytes} bytes is no multiple of {SIZE_UNIT}")
        });
    } else if resource.kind == ResourceKind::Volume && !(MIN_VOLUME..=MAX_VOLUME).contains(&bytes) {
        log.find(FindingKind::ResourceSize, Key::Resource(id), || {
            format!("its size of {bytes} bytes is not 1 MiB to 1 PiB")
        });
    }
}

fn fits_node(id: Uuid, resource: &Resource, node: &Node, log: &mut Log) {
    let good = match resource.kind {
        ResourceKind::Volume => node.state == State::Head,
        ResourceKind::Snapshot | ResourceKind::Image | ResourceKind::File => {
            node.state == State::Frozen
        }
    };
    let number = resource.node;
    if !good {
        log.find(FindingKind::NodeState, Key::Resource(id), || {
            format!(
                "its node {number} is {}, which does not fit a resource of its kind",
                node.state
            )
        });
    }
    if node.faulted {
        log.find(FindingKind::VolumeFaulted, Key::Resource(id), || {
            format!(
                "a flush of {:?} failed: it answers no I/O before a deep check has found all its objects and cleared this",
                resource.name
            )
        });
    }
    if node.pool != resource.pool {
        log.find(FindingKind::NodeState, Key::Resource(id), || {
            format!(
                "it is in pool {} and its node {number} in pool {}",
                resource.pool, node.pool
            )
        });
    }
}

fn exports(catalogue: &Catalogue, log: &mut Log) {
    for (id, protocol) in &catalogue.exports {
        if !catalogue.resources.contains_key(id) && !catalogue.is_damaged(&Key::resource_row(*id)) {
            log.find(
                FindingKind::ExportDangling,
                Key::Export(*id, *protocol),
                || "its resource does not exist".into(),
            );
        }
    }
}

fn children(catalogue: &Catalogue, log: &mut Log) {
    for (parent, child) in &catalogue.children {
        let good = match catalogue.nodes.get(child) {
            Some(node) => node.parent == *parent,
            None => catalogue.is_damaged(&Key::node_row(*child)),
        };
        if !good {
            log.find(
                FindingKind::ChildTable,
                Key::Child {
                    parent: *parent,
                    child: *child,
                },
                || "there is no such child: the parent would never be deleted".into(),
            );
        }
    }
}

fn owner(catalogue: &Catalogue, number: u64, node: &Node, log: &mut Log) {
    let has_child = catalogue
        .children
        .range((number, 0)..=(number, u64::MAX))
        .next()
        .is_some();
    let accounted = catalogue.owners.contains_key(&number)
        || node.state == State::Dying
        || (node.state == State::Frozen && has_child);
    // A resource that cannot be read may be the owner.
    if !accounted && !catalogue.any_damaged() {
        log.find(FindingKind::NodeUnowned, Key::Node(number), || {
            format!(
                "it is {} and no resource has it: its space is never given back",
                node.state
            )
        });
    }
    missing_pool(catalogue, node.pool, Key::Node(number), log);
}

fn parent(catalogue: &Catalogue, number: u64, node: &Node, log: &mut Log) {
    let place = Key::Node(number);
    if (node.parent == 0) != (node.depth == 0) {
        log.find(FindingKind::Depth, &place, || {
            format!("its depth is {} and its parent {}", node.depth, node.parent)
        });
    }
    if node.parent == 0 {
        return;
    }
    if node.state == State::Dying {
        log.find(FindingKind::NodeState, &place, || {
            format!(
                "it is dying and has the parent {}: the parent would never be deleted",
                node.parent
            )
        });
    }
    let child = Key::Child {
        parent: node.parent,
        child: number,
    };
    if !catalogue.children.contains(&(node.parent, number)) {
        log.find(FindingKind::ChildTable, &child, || {
            "the row is missing: the parent may be deleted while this child needs it".into()
        });
    }
    let Some(above) = catalogue.nodes.get(&node.parent) else {
        if !catalogue.is_damaged(&Key::node_row(node.parent)) {
            log.find(FindingKind::ParentMissing, place, || {
                format!(
                    "its parent {} does not exist: what it inherits is lost",
                    node.parent
                )
            });
        }
        return;
    };
    if above.state != State::Frozen || above.pool != node.pool {
        log.find(FindingKind::NodeState, &place, || {
            format!(
                "its parent {} is {} in pool {}; a parent is frozen and in the same pool",
                node.parent, above.state, above.pool
            )
        });
    }
}

fn parent_of(catalogue: &Catalogue, number: u64) -> u64 {
    catalogue.nodes.get(&number).map_or(0, |node| node.parent)
}

fn cycles(catalogue: &Catalogue, log: &mut Log) {
    // By node: where the walk towards the root began that came to it first.
    let mut seen: HashMap<u64, u64> = HashMap::new();
    for start in catalogue.nodes.keys() {
        let mut at = *start;
        while at != 0 && !seen.contains_key(&at) {
            seen.insert(at, *start);
            at = parent_of(catalogue, at);
        }
        if seen.get(&at) != Some(start) {
            continue;
        }
        let first = at;
        loop {
            log.find(FindingKind::ParentCycle, Key::Node(at), || {
                "it is its own ancestor: reading what it inherits never ends".into()
            });
            at = parent_of(catalogue, at);
            if at == first {
                break;
            }
        }
    }
}

fn limits(catalogue: &Catalogue, number: u64, node: &Node, log: &mut Log) {
    let size = catalogue.resource_of(number).map(|resource| resource.size);
    if node.parent == 0 && node.inherit_end != 0 {
        log.find(FindingKind::InheritEnd, Key::Node(number), || {
            format!(
                "it inherits up to byte {} and has no parent",
                node.inherit_end
            )
        });
    } else if node.inherit_end > size.unwrap_or(MAX_VOLUME) {
        log.find(FindingKind::InheritEnd, Key::Node(number), || {
            format!(
                "it inherits up to byte {}, beyond its end: growing would bring old data back",
                node.inherit_end
            )
        });
    } else if !node.inherit_end.is_multiple_of(SIZE_UNIT) {
        log.find(FindingKind::InheritEnd, Key::Node(number), || {
            format!(
                "it inherits up to byte {}, no multiple of {SIZE_UNIT}",
                node.inherit_end
            )
        });
    }
    trim(catalogue, number, node, size, log);
    let mark = catalogue.mark(node.pool);
    for (what, generation) in [("cut", node.cut), ("current generation", node.current)] {
        if generation != 0 && generation >= mark {
            log.find(FindingKind::AboveMark, Key::Node(number), || {
                format!("its {what} {generation:013x} is not below the mark {mark:013x}: names could be used twice")
            });
        }
    }
    if catalogue.run.is_some_and(|run| node.run > run.starts) {
        log.find(FindingKind::RunState, Key::Node(number), || {
            format!("it was left by start {}, which has not been", node.run)
        });
    }
}

fn trim(catalogue: &Catalogue, number: u64, node: &Node, size: Option<u64>, log: &mut Log) {
    let (Some(trim), Some(object)) = (node.trim, catalogue.object_size(node.pool)) else {
        return;
    };
    if !trim.is_multiple_of(object) {
        log.find(FindingKind::Trim, Key::Node(number), || {
            format!("it is trimmed from byte {trim}, no multiple of the object size {object}")
        });
    } else if size.is_some_and(|size| trim < size) {
        log.find(FindingKind::Trim, Key::Node(number), || {
            format!(
                "it is trimmed from byte {trim}, before its resource's end: data is being dropped"
            )
        });
    }
}

fn currents(catalogue: &Catalogue, log: &mut Log) {
    let mut seen = HashMap::new();
    let heads = catalogue
        .nodes
        .iter()
        .filter(|(_, node)| node.state == State::Head);
    for (number, node) in heads.filter(|(_, node)| node.current != 0) {
        if let Some(other) = seen.insert((node.pool, node.current), *number) {
            log.find(FindingKind::GenerationShared, Key::Node(*number), || {
                format!(
                    "node {other} creates objects in its generation {:013x} too",
                    node.current
                )
            });
        }
    }
}

fn counters(catalogue: &Catalogue, log: &mut Log) {
    let nodes = catalogue.nodes.keys().next_back().copied().unwrap_or(0);
    let pools = catalogue.pools.keys().next_back().copied().unwrap_or(0);
    counter(catalogue, Counter::Node, nodes, log);
    counter(catalogue, Counter::Pool, u64::from(pools), log);
}

/// Logs it if the counter would give out `highest`, or a lower number, again.
pub(super) fn counter(catalogue: &Catalogue, counter: Counter, highest: u64, log: &mut Log) {
    let kind: u8 = match counter {
        Counter::Node => 1,
        Counter::Pool => 2,
        Counter::Ref => 3,
    };
    let next = catalogue.counters.get(&counter).copied().unwrap_or(1);
    if highest >= next && !catalogue.is_damaged(&[0x03, kind]) {
        log.find(FindingKind::Counter, Key::Counter(counter), || {
            format!(
                "the next {} is {next}, and {highest} exists: numbers would be used twice",
                counter.noun()
            )
        });
    }
}
