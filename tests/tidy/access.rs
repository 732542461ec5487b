//! Every RPC has its row in the access table, and every row its RPC.

use prost::Message;
use prost_types::FileDescriptorSet;
use std::collections::BTreeSet;

#[test]
fn the_access_table_names_every_rpc_and_nothing_else() {
    let set = FileDescriptorSet::decode(plat_wire::FILE_DESCRIPTOR_SET).expect("the descriptor is one");
    let services = set.file.iter().flat_map(|file| file.service.iter().map(move |service| (file.package(), service)));
    let served: BTreeSet<String> = services
        .flat_map(|(package, service)| {
            service.method.iter().map(move |method| format!("{package}.{}/{}", service.name(), method.name()))
        })
        .collect();
    let ruled: BTreeSet<String> = plat_master_plan::access::TABLE.iter().map(|row| row.rpc.to_owned()).collect();
    assert!(served.len() > 20, "the descriptor could not be read");
    let missing: Vec<_> = served.difference(&ruled).collect();
    let stale: Vec<_> = ruled.difference(&served).collect();
    assert!(missing.is_empty() && stale.is_empty(), "not in the table: {missing:?}; in the table only: {stale:?}");
}
