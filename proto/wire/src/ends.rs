//! Clients and servers with the limits set and the version said or checked: make one only through these.

use crate::limits::MAX_MESSAGE;
use crate::skew::{CheckVersion, SayVersion};
use crate::v1::admin_service_client::AdminServiceClient;
use crate::v1::admin_service_server::{AdminService, AdminServiceServer};
use crate::v1::grid_service_client::GridServiceClient;
use crate::v1::grid_service_server::{GridService, GridServiceServer};
use crate::v1::node_service_client::NodeServiceClient;
use crate::v1::node_service_server::{NodeService, NodeServiceServer};
use crate::v1::usage_service_client::UsageServiceClient;
use crate::v1::usage_service_server::{UsageService, UsageServiceServer};
use tonic::service::interceptor::InterceptedService;
use tonic::transport::Channel;

/// A channel that says our version.
pub type Versioned = InterceptedService<Channel, SayVersion>;
pub type NodeClient = NodeServiceClient<Versioned>;
pub type GridClient = GridServiceClient<Versioned>;
pub type AdminClient = AdminServiceClient<Versioned>;
pub type UsageClient = UsageServiceClient<Versioned>;

macro_rules! ends {
    ($($client:ident $server:ident: $kind:ident $made:ident, $service:ident $serves:ident;)*) => {$(
        /// A client over `channel`; cheap, and so is a clone of it.
        pub fn $client(channel: Channel) -> $kind {
            $made::with_interceptor(channel, SayVersion)
                .max_decoding_message_size(MAX_MESSAGE)
                .max_encoding_message_size(MAX_MESSAGE)
        }

        /// A server that answers by `service`.
        pub fn $server<S: $service>(service: S) -> InterceptedService<$serves<S>, CheckVersion> {
            let server = $serves::new(service)
                .max_decoding_message_size(MAX_MESSAGE)
                .max_encoding_message_size(MAX_MESSAGE);
            InterceptedService::new(server, CheckVersion)
        }
    )*};
}

ends! {
    node_client node_server: NodeClient NodeServiceClient, NodeService NodeServiceServer;
    grid_client grid_server: GridClient GridServiceClient, GridService GridServiceServer;
    admin_client admin_server: AdminClient AdminServiceClient, AdminService AdminServiceServer;
    usage_client usage_server: UsageClient UsageServiceClient, UsageService UsageServiceServer;
}
