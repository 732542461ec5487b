//! `plat login`: a token for a certificate. The key is made here and never leaves.

use super::{Context, done, read_text};
use crate::Result;
use crate::args::LoginArgs;
use crate::profile::{self, Profile};
use crate::session::CREDENTIALS;
use plat_link::tls::RootPin;
use plat_link::{Address, Credentials, DialSettings, Key, Trust, dial, tcp};
use plat_model::Problem;
use plat_model::id::GridName;
use plat_model::problem::codes;
use plat_wire::{ends, v1};
use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::sync::Arc;

pub async fn login(context: &Context, args: LoginArgs) -> Result<()> {
    let folder = profile::folder(context.global.profile.as_deref())?;
    if args.again {
        return again(context, &args, &folder).await;
    }
    if folder.exists() {
        return Err(Problem::new(codes::EXISTS, format!("there is a profile in {} already", folder.display()))
            .fix("add --again to give it new credentials of the same user, or name another folder with --profile")
            .into());
    }
    let address = Address::parse(args.master.as_deref().unwrap_or_default())?;
    let (answer, credentials) = exchange(context, &address, &args.token_file).await?;
    let profile = Profile {
        version: Profile::VERSION,
        url: address.to_string(),
        grid: answer.grid.clone(),
        user: answer.user.clone(),
    };
    save(&folder, &profile, &credentials)?;
    done(&format!("{} may use grid {} now; the credentials are in {}", answer.user, answer.grid, folder.display()));
    Ok(())
}

/// New credentials in the place of those of a profile, which stay if anything fails.
async fn again(context: &Context, args: &LoginArgs, folder: &Path) -> Result<()> {
    let profile = Profile::load(folder)?;
    let address = Address::parse(args.master.as_deref().unwrap_or(&profile.url))?;
    let (answer, credentials) = exchange(context, &address, &args.token_file).await?;
    if (&answer.grid, &answer.user) != (&profile.grid, &profile.user) {
        return Err(Problem::new(codes::EXISTS, format!("the profile in {} is another's", folder.display()))
            .because(format!(
                "it is of {} in grid {}, the token was for {} in grid {}",
                profile.user, profile.grid, answer.user, answer.grid
            ))
            .fix("ask for a new token and name another folder with --profile")
            .into());
    }
    credentials.save(&folder.join(CREDENTIALS))?;
    done(&format!("{} has new credentials in {}", answer.user, folder.display()));
    Ok(())
}

async fn exchange(
    context: &Context,
    address: &Address,
    token_file: &Path,
) -> Result<(v1::LoginResponse, Arc<Credentials>)> {
    let token = read_text(token_file)?.trim().to_owned();
    let pin = pin(&token)?;
    let key = Key::generate()?;
    let channel = dial(address, Trust::Pin(pin), DialSettings::default(), tcp)?;
    let ask = v1::LoginRequest { token, csr_der: key.csr_der()? };
    let mut answer = context.ask(ends::admin_client(channel).login(ask)).await?;
    let (chain, root) = (std::mem::take(&mut answer.chain_der), std::mem::take(&mut answer.root_der));
    let credentials = Credentials::new(GridName::parse(&answer.grid)?, key, chain, vec![root])?;
    Ok((answer, credentials))
}

/// The hash of the grid's root certificate, which is the last part of a token.
fn pin(token: &str) -> Result<RootPin, Problem> {
    let wrong = || {
        Problem::new(codes::UNKNOWN_TOKEN, "the token cannot be used")
            .because("it is not of the form plat1.ID.SECRET.CA")
            .fix("copy it whole, as `plat token create` printed it")
    };
    let digits =
        token.strip_prefix("plat1.").and_then(|rest| rest.rsplit_once('.')).map(|(_, ca)| ca).ok_or_else(wrong)?;
    if digits.len() != 64 || !digits.bytes().all(|b| b.is_ascii_hexdigit()) {
        return Err(wrong());
    }
    let mut pin = [0; 32];
    for (byte, pair) in pin.iter_mut().zip(digits.as_bytes().chunks(2)) {
        let pair = std::str::from_utf8(pair).map_err(|_| wrong())?;
        *byte = u8::from_str_radix(pair, 16).map_err(|_| wrong())?;
    }
    Ok(RootPin(pin))
}

/// Writes the whole folder beside its place, then moves it there: a profile is there whole, or not at all.
fn save(folder: &Path, profile: &Profile, credentials: &Credentials) -> Result<(), Problem> {
    let wrong =
        |e: &dyn std::fmt::Display| Problem::new(codes::FILE, format!("cannot write {}", folder.display())).because(e);
    let parent = folder.parent().unwrap_or(Path::new("."));
    std::fs::create_dir_all(parent).map_err(|e| wrong(&e))?;
    let staged = parent.join(format!(".plat-profile-{}", std::process::id()));
    DirBuilder::new().mode(0o700).create(&staged).map_err(|e| wrong(&e))?;
    let written = credentials.save(&staged.join(CREDENTIALS)).and_then(|()| {
        let text = toml::to_string(profile).map_err(|e| wrong(&e))?;
        std::fs::write(staged.join("profile.toml"), text).map_err(|e| wrong(&e))?;
        std::fs::rename(&staged, folder).map_err(|e| wrong(&e))
    });
    if written.is_err() {
        let _ = std::fs::remove_dir_all(&staged);
    }
    written
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pin_is_the_last_part_of_a_token_and_damaged_ones_are_refused() {
        let ca = "ab".repeat(32);
        assert_eq!(pin(&format!("plat1.0123456789abcdef.c2VjcmV0.{ca}")).unwrap(), RootPin([0xab; 32]));
        for wrong in ["", "plat1", "plat1.a.b.c", "plat2.a.b.c", &format!("plat1.a.b.{}é", &ca[..62])] {
            assert_eq!(pin(wrong).unwrap_err().code, codes::UNKNOWN_TOKEN, "{wrong}");
        }
    }
}
