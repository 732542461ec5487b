//! Renders a release for an imagined instance and prints what an agent would write and run, as JSON:
//! `cargo run -p plat-document --example render -- FILE RELEASE_DIRECTORY PARTITION_DIRECTORY ADDRESS [PARAMETERS]`.

use plat_document::template::{
    Context, InstanceFacts, NodeFacts, PartitionFacts, ReleaseFacts, render, render_list, render_map,
};
use plat_document::{Release, parameters};
use plat_model::id::{InstanceId, InstanceName, NodeId, PartitionName, ProjectName};
use plat_model::parameters::{Parameters, Secret};
use serde_json::{Map, Value, json};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [file, release_directory, directory, address, rest @ ..] = arguments.as_slice() else {
        return Err("render FILE RELEASE_DIRECTORY PARTITION_DIRECTORY ADDRESS [PARAMETERS]".into());
    };
    let release = Release::parse_yaml(&std::fs::read_to_string(file)?, file)?;
    let said = Parameters::parse_json(rest.first().map_or("{}", String::as_str))?;
    let context = Context {
        shared: Vec::new(),
        parameters: parameters::check(&release, &said)?,
        volumes: Default::default(),
        secrets: release.secrets.keys().map(|name| (name.clone(), Secret::new("imagined1"))).collect(),
        instance: InstanceFacts {
            id: InstanceId::parse(&"0".repeat(32))?,
            name: InstanceName::parse("example")?,
            project: ProjectName::parse("example")?,
        },
        partition: PartitionFacts {
            name: PartitionName::parse("part0")?,
            user: "nobody".into(),
            address: address.parse()?,
            ipv4: None,
            directory: directory.clone(),
            storage: Vec::new(),
            resource_file: None,
        },
        release: ReleaseFacts { directory: release_directory.clone(), digest: release.digest() },
        node: NodeFacts { name: NodeId::parse("example")? },
    };
    let mut files = Map::new();
    for (path, file) in &release.files {
        files.insert(path.clone(), json!({"text": render(&file.template, &context)?, "mode": file.mode}));
    }
    let mut services = Map::new();
    for (name, service) in &release.services {
        let command = render_list(&service.command, &context)?;
        let environment = render_map(&service.environment, &context)?;
        services.insert(name.to_string(), json!({"command": command, "environment": environment}));
    }
    let init = match &release.hooks.init {
        Some(hook) => json!({
            "command": render_list(&hook.command, &context)?,
            "environment": render_map(&hook.environment, &context)?,
        }),
        None => Value::Null,
    };
    let publish = render_map(&release.publish, &context)?;
    println!("{}", json!({"files": files, "init": init, "services": services, "publish": publish}));
    Ok(())
}
