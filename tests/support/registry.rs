//! campaignd's own embedded registry, in this process.

use campaignd::schema::embedded::EmbeddedRegistry;

/// Starts one and returns its address; it lives as long as the process.
pub fn start() -> String {
    let (sender, receiver) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async move {
            let registry = EmbeddedRegistry::start().await.expect("the embedded registry starts");
            sender.send(registry.url().to_owned()).expect("somebody waits for it");
            std::future::pending::<()>().await;
        });
    });
    receiver.recv().expect("it says where it listens")
}
