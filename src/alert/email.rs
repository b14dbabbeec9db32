//! E-mail by SMTP: TLS from the first byte, STARTTLS, or in the clear where that was said so.

use lettre::message::Mailbox;
use lettre::message::header::{ContentType, HeaderName, HeaderValue};
use lettre::transport::smtp::authentication::Credentials;
use lettre::transport::smtp::client::{Certificate, CertificateStore, Tls, TlsParameters};
use lettre::{Address, AsyncSmtpTransport, AsyncTransport, Message, Tokio1Executor};

use super::{ATTEMPT_TIMEOUT, Undelivered, text};
use crate::config::Email;
use crate::domain::{Notice, NoticeKind};

/// A mail server.
pub(super) struct Mailer {
    transport: AsyncSmtpTransport<Tokio1Executor>,
    from: Mailbox,
    to: Vec<String>,
    page: Option<String>,
}

impl Mailer {
    /// The server of the settings. The error is for people.
    pub(super) fn new(email: &Email, page: Option<String>) -> Result<Self, String> {
        let tls = match (email.tls, email.starttls) {
            (true, _) => Tls::Wrapper(parameters(email)?),
            (false, true) => Tls::Required(parameters(email)?),
            (false, false) => Tls::None,
        };
        let mut builder = AsyncSmtpTransport::<Tokio1Executor>::builder_dangerous(&email.host)
            .port(email.port)
            .tls(tls)
            .timeout(Some(ATTEMPT_TIMEOUT));
        if let Some((user, password)) = &email.credentials {
            let password = password.expose().to_owned();
            builder = builder.credentials(Credentials::new(user.clone(), password));
        }
        let from = mailbox(&email.from).map_err(|why| format!("from: {why}"))?;
        Ok(Self { transport: builder.build(), from, to: email.to.clone(), page })
    }

    /// Sends one mail to all receivers.
    pub(super) async fn send(&self, notice: &Notice) -> Result<(), Undelivered> {
        let mail = self.mail(notice).map_err(Undelivered::Never)?;
        let sent = self.transport.send(mail).await;
        sent.map(drop).map_err(|error| {
            let told = error.to_string();
            if error.is_permanent() { Undelivered::Never(told) } else { Undelivered::Later(told) }
        })
    }

    fn mail(&self, notice: &Notice) -> Result<Message, String> {
        let to = if notice.emails.is_empty() { &self.to } else { &notice.emails };
        let mut builder = Message::builder()
            .from(self.from.clone())
            .subject(format!("[flowtap] {}", text::title(notice)))
            .header(ContentType::TEXT_PLAIN);
        for receiver in to {
            builder = builder.to(mailbox(receiver)?);
        }
        // All mails of one violation are one conversation.
        let host = self.from.email.domain();
        let thread = format!("<{}@{host}>", notice.key().replace(['/', ' '], "."));
        builder = match notice.kind {
            NoticeKind::Opened => builder.message_id(Some(thread)),
            NoticeKind::Repeated | NoticeKind::Resolved => {
                builder.references(thread.clone()).in_reply_to(thread)
            }
            NoticeKind::Test => builder,
        };
        // Nobody's out-of-office answers this (RFC 3834).
        let automatic = HeaderName::new_from_ascii_str("Auto-Submitted");
        let automatic = HeaderValue::new(automatic, "auto-generated".to_owned());
        let body = text::lines(notice, self.page.as_deref()).join("\n") + "\n";
        builder.raw_header(automatic).body(body).map_err(|error| error.to_string())
    }
}

fn mailbox(address: &str) -> Result<Mailbox, String> {
    let address: Address = address.parse().map_err(|error| format!("`{address}`: {error}"))?;
    Ok(Mailbox::new(None, address))
}

fn parameters(email: &Email) -> Result<TlsParameters, String> {
    let mut builder = TlsParameters::builder(email.host.clone());
    if let Some(path) = &email.ca_file {
        let pem = std::fs::read(path).map_err(|error| format!("{}: {error}", path.display()))?;
        let certificates =
            Certificate::from_pem(&pem).map_err(|error| format!("{}: {error}", path.display()))?;
        builder =
            builder.certificate_store(CertificateStore::None).add_root_certificate(certificates);
    }
    builder.build().map_err(|error| error.to_string())
}
