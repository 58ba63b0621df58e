// The flow has no passwords, and the editor neither: both are for this machine only.
module.exports = {
    uiHost: "127.0.0.1",
    uiPort: process.env.PORT || 1880,
    flowFilePretty: true,
    telemetry: { enabled: false, updateNotification: false },
};
