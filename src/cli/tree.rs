//! Draws the tree of maps as lines: what inherits from what. One line of descent goes straight down,
//! the others branch off, so that a thousand snapshots in a row are as narrow as one.

use std::collections::{BTreeMap, HashMap};

use crate::api::TreeNode;

/// A node, and what is drawn in front of its name.
#[derive(Debug, PartialEq, Eq)]
pub struct Line<'a> {
    pub prefix: String,
    pub node: &'a TreeNode,
}

/// The trees of these nodes, each as its lines from the root down.
///
/// Of several children the one with most descendants goes on in its parent's column, below the
/// others, which are drawn as branches: so the indent grows by the logarithm of the nodes.
pub fn draw(nodes: &[TreeNode]) -> Vec<Vec<Line<'_>>> {
    let by_number: BTreeMap<u64, &TreeNode> = nodes.iter().map(|node| (node.node, node)).collect();
    let mut children: HashMap<u64, Vec<&TreeNode>> = HashMap::new();
    let mut roots = Vec::new();
    for node in by_number.values() {
        match node.parent.filter(|parent| by_number.contains_key(parent)) {
            Some(parent) => children.entry(parent).or_default().push(node),
            None => roots.push(*node),
        }
    }
    let sizes = sizes(&roots, &children);
    for siblings in children.values_mut() {
        // The heaviest last; of equals the oldest, which is the volume's own line.
        siblings.sort_by_key(|node| (sizes.get(&node.node), std::cmp::Reverse(node.node)));
    }
    let tree = |root| lines(root, &children);
    roots.into_iter().map(tree).collect()
}

/// Numbers of nodes at and below each. Without recursion: there may be thousands in a row.
fn sizes(roots: &[&TreeNode], children: &HashMap<u64, Vec<&TreeNode>>) -> HashMap<u64, u64> {
    let mut order: Vec<&TreeNode> = roots.to_vec();
    let mut next = 0;
    while let Some(node) = order.get(next) {
        next += 1;
        if let Some(below) = children.get(&node.node) {
            order.extend(below);
        }
    }
    let mut sizes = HashMap::new();
    for node in order.iter().rev() {
        let below = children.get(&node.node).into_iter().flatten();
        let below: u64 = below.filter_map(|child| sizes.get(&child.node)).sum();
        sizes.insert(node.node, 1 + below);
    }
    sizes
}

fn lines<'a>(root: &'a TreeNode, children: &HashMap<u64, Vec<&'a TreeNode>>) -> Vec<Line<'a>> {
    let mut lines = Vec::new();
    // What is in front of a node's own line, and of the lines below it.
    let mut left = vec![(root, String::new(), String::new())];
    while let Some((node, prefix, below)) = left.pop() {
        lines.push(Line { prefix, node });
        let Some((heaviest, branches)) = children.get(&node.node).and_then(|all| all.split_last())
        else {
            continue;
        };
        left.push((heaviest, below.clone(), below.clone()));
        for branch in branches.iter().rev() {
            left.push((branch, format!("{below}├─ "), format!("{below}│  ")));
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::units::ByteSize;

    fn node(node: u64, parent: Option<u64>) -> TreeNode {
        TreeNode {
            node,
            parent,
            resource: None,
            own: ByteSize::default(),
        }
    }

    fn drawn(nodes: &[(u64, Option<u64>)]) -> String {
        let nodes: Vec<_> = nodes.iter().map(|(n, parent)| node(*n, *parent)).collect();
        let tree = |lines: Vec<Line<'_>>| {
            let line = |line: &Line<'_>| format!("{}{}\n", line.prefix, line.node.node);
            lines.iter().map(line).collect::<String>()
        };
        let trees: Vec<String> = draw(&nodes).into_iter().map(tree).collect();
        trees.join("\n")
    }

    #[test]
    fn the_longest_line_of_descent_goes_straight_down_and_others_branch_off() {
        let nodes = [
            (1, None),
            (2, Some(1)),
            (3, Some(1)),
            (4, Some(2)),
            (5, Some(2)),
            (6, Some(3)),
            (7, Some(4)),
            (8, Some(6)),
            (9, None),
        ];
        assert_eq!(
            drawn(&nodes),
            "\
1
├─ 3
│  6
│  8
2
├─ 5
4
7

9
"
        );
    }

    #[test]
    fn of_equal_children_the_oldest_goes_on() {
        assert_eq!(
            drawn(&[(1, None), (3, Some(1)), (2, Some(1))]),
            "1\n├─ 3\n2\n"
        );
    }

    #[test]
    fn a_node_whose_parent_is_gone_is_a_root_of_what_is_below_it() {
        assert_eq!(drawn(&[(5, Some(4)), (6, Some(5))]), "5\n6\n");
    }

    #[test]
    fn thousands_in_a_row_and_a_bush_are_narrow_and_each_is_drawn_once() {
        let chain: Vec<_> = (1..=20_000)
            .map(|n| node(n, (n > 1).then(|| n - 1)))
            .collect();
        let bush: Vec<_> = (1..=20_000)
            .map(|n| node(n, (n > 1).then_some(n / 2)))
            .collect();
        for (nodes, most) in [(chain, 0), (bush, 3 * 15)] {
            let trees = draw(&nodes);
            let [lines] = &trees[..] else {
                panic!("{} trees", trees.len())
            };
            let mut numbers: Vec<u64> = lines.iter().map(|line| line.node.node).collect();
            let widest = lines.iter().map(|line| line.prefix.chars().count()).max();
            assert!(widest <= Some(most), "{widest:?}");
            numbers.sort_unstable();
            assert!(numbers.into_iter().eq(1..=20_000));
        }
    }
}
