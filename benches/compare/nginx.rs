//! nginx with Lua: LuaJIT calls libcrypto, which nginx is linked with, with the key schedule prepared.

use std::path::Path;

use crate::Outcome;
use crate::process::{Ends, Program};
use crate::scene::{TOKEN_KEY, TOKEN_SECRET, fill, lines};

/// Where Debian puts its modules.
const MODULES: [&str; 2] = ["/usr/lib/nginx/modules", "/usr/share/nginx/modules"];

/// Writes its files, and says how it is run.
pub(crate) fn prepare(folder: &Path, ends: &Ends) -> Outcome<Program> {
    let modules = MODULES
        .into_iter()
        .find(|folder| {
            Path::new(folder)
                .join("ngx_http_lua_module.so")
                .try_exists()
                .unwrap_or(false)
        })
        .ok_or("nginx has no Lua: install libnginx-mod-http-lua")?;
    let callers = lines(|caller| format!("{} {} {}", caller.digest(), caller.name, caller.user));
    std::fs::write(folder.join("callers.txt"), callers)?;
    let (listen, site) = (ends.plain.to_string(), ends.site.to_string());
    let listen_tls = ends.secured.to_string();
    let place = folder.display().to_string();
    let values = [
        ("listen", listen.as_str()),
        ("listen_tls", &listen_tls),
        ("site", &site),
        ("folder", &place),
        ("modules", modules),
        ("key", TOKEN_KEY),
        ("secret", TOKEN_SECRET),
    ];
    for (name, template) in [
        ("nginx.conf", include_str!("nginx.conf")),
        ("init.lua", include_str!("init.lua")),
        ("sign.lua", include_str!("sign.lua")),
    ] {
        std::fs::write(folder.join(name), fill(template, &values))?;
    }
    let mut program = Program::new("nginx", folder);
    program
        .arguments(["-e", "stderr", "-p"])
        .argument(folder)
        .argument("-c")
        .argument(folder.join("nginx.conf"));
    // Its own file, and opened for appending as well.
    program.log = folder.join("nginx.log");
    Ok(program)
}
