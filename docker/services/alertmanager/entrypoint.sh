#!/usr/bin/env bash
# Alertmanager: groups alerts and sends them to whom .env names. With nobody named they are seen in Grafana and by amtool only.
#   ALERTMANAGER_DATA_DIR, RUN_DIR
#   ALERTMANAGER_PORT       (default 9095)
#   ALERT_WEBHOOK_URL       alerts are posted to it as JSON; ALERT_WEBHOOK_URL_FILE for one that holds a token
#   ALERT_EMAIL_TO          addresses, with a comma between them; then also:
#   ALERT_SMTP_HOST         host:port of the mail server
#   ALERT_EMAIL_FROM        (default shudl@localhost)
#   ALERT_SMTP_USER, ALERT_SMTP_PASSWORD_FILE
#                           for a server that asks for them
#   ALERT_SMTP_TLS          whether TLS is required (default true)
source "$(dirname "$0")/../common/lib.sh"
need ALERTMANAGER_DATA_DIR RUN_DIR
: "${ALERTMANAGER_PORT:=9095}" "${ALERT_EMAIL_FROM:=shudl@localhost}" "${ALERT_SMTP_TLS:=true}"

quoted() { # TEXT: as a YAML string
    printf "'%s'" "${1//\'/\'\'}"
}

receiver=()
[ -z "${ALERT_WEBHOOK_URL:-}" ] || [ -z "${ALERT_WEBHOOK_URL_FILE:-}" ] || die "set ALERT_WEBHOOK_URL or ALERT_WEBHOOK_URL_FILE, not both"
if [ -n "${ALERT_WEBHOOK_URL_FILE:-}" ]; then
    [ -r "$ALERT_WEBHOOK_URL_FILE" ] || die "ALERT_WEBHOOK_URL_FILE=$ALERT_WEBHOOK_URL_FILE cannot be read"
    receiver+=("    webhook_configs:" "      - url_file: $(quoted "$ALERT_WEBHOOK_URL_FILE")")
elif [ -n "${ALERT_WEBHOOK_URL:-}" ]; then
    [[ $ALERT_WEBHOOK_URL =~ ^https?://[^[:space:]]+$ ]] || die "ALERT_WEBHOOK_URL=$ALERT_WEBHOOK_URL must begin with http:// or https://"
    receiver+=("    webhook_configs:" "      - url: $(quoted "$ALERT_WEBHOOK_URL")")
fi
if [ -n "${ALERT_EMAIL_TO:-}" ]; then
    need ALERT_SMTP_HOST
    [[ $ALERT_SMTP_HOST =~ ^[^:[:space:]]+:[0-9]+$ ]] || die "ALERT_SMTP_HOST=$ALERT_SMTP_HOST must be host:port"
    [[ $ALERT_SMTP_TLS =~ ^(true|false)$ ]] || die "ALERT_SMTP_TLS=$ALERT_SMTP_TLS must be true or false"
    receiver+=("    email_configs:" "      - to: $(quoted "$ALERT_EMAIL_TO")" "        from: $(quoted "$ALERT_EMAIL_FROM")"
        "        smarthost: $(quoted "$ALERT_SMTP_HOST")" "        require_tls: $ALERT_SMTP_TLS" "        send_resolved: true")
    if [ -n "${ALERT_SMTP_USER:-}" ]; then
        need ALERT_SMTP_PASSWORD_FILE
        [ -r "$ALERT_SMTP_PASSWORD_FILE" ] || die "ALERT_SMTP_PASSWORD_FILE=$ALERT_SMTP_PASSWORD_FILE cannot be read"
        receiver+=("        auth_username: $(quoted "$ALERT_SMTP_USER")"
            "        auth_password_file: $(quoted "$ALERT_SMTP_PASSWORD_FILE")")
    fi
fi
printf -v ALERTMANAGER_RECEIVER '%s\n' "${receiver[@]+"${receiver[@]}"}"
render "$here/config/alertmanager.yml.template" "$RUN_DIR/alertmanager.yml"
exec prometheus-alertmanager --config.file="$RUN_DIR/alertmanager.yml" --storage.path="$ALERTMANAGER_DATA_DIR" \
    --web.listen-address="0.0.0.0:$ALERTMANAGER_PORT" --cluster.listen-address= --log.level=warn
