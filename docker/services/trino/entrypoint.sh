#!/usr/bin/env bash
# Trino, with the lake as catalogs `lake` (branch main) and `published` (what ClickHouse serves).
#   JAVA_HOME, TRINO_HOME, TRINO_HOST, TRINO_PORT, TRINO_DATA_DIR, TRINO_HEAP, TRINO_QUERY_MEMORY, RUN_DIR
#   TRINO_BIND           where it listens; TRINO_HOST unless set
#   TRINO_COORDINATOR    host of the coordinator, by default TRINO_HOST: this one. Others are its workers (profile ha), and
#                        where there are any, it plans queries and runs none of their parts
#   LAKE_CATALOG_URI, LAKE_PUBLISHED_REF, LAKE_WAREHOUSE, LAKE_S3_ENDPOINT, LAKE_S3_REGION, LAKE_S3_ACCESS_KEY_FILE, LAKE_S3_SECRET_KEY_FILE
#   LAKE_CATALOG_TOKEN_FILE   a token that the catalogue asks for, as nessie-proxy does of a Trino that is elsewhere
# With TLS, clients sign in as the user shudl:
#   TRINO_PASSWORD_FILE  the password; the coordinator's
#   TRINO_INTERNAL_FILE  a secret that calls of its nodes to each other carry
# and, where people sign in by Keycloak (see signs_in), people by a browser or a token of theirs; config/rules.json says who may what:
#   OIDC_ISSUER, OIDC_URL   the realm, as browsers and as containers reach it; OIDC_TRINO_FILE, the client's secret
source "$(dirname "$0")/../common/lib.sh"
need JAVA_HOME TRINO_HOME TRINO_HOST TRINO_PORT TRINO_DATA_DIR TRINO_HEAP TRINO_QUERY_MEMORY RUN_DIR \
    LAKE_CATALOG_URI LAKE_BRANCH LAKE_PUBLISHED_REF LAKE_WAREHOUSE LAKE_S3_ENDPOINT LAKE_S3_REGION
# The catalogs read them as ${ENV:…}.
secret LAKE_S3_ACCESS_KEY LAKE_S3_SECRET_KEY
[ -z "${LAKE_CATALOG_TOKEN_FILE:-}" ] || secret LAKE_CATALOG_TOKEN
TRINO_BIND=${TRINO_BIND:-$TRINO_HOST}
etc=$RUN_DIR/etc

# bcrypt: reads a password, prints what the password file has of it.
bcrypt() {
    perl -e '
        open(my $random, "<:raw", "/dev/urandom") or die;
        read($random, my $bytes, 21) == 21 or die;
        my @letters = (".", "/", "A".."Z", "a".."z", 0..9);
        chomp(my $password = <STDIN>);
        print crypt($password, "\$2y\$10\$" . join("", map { $letters[$_ % 64] } unpack("C*", $bytes)) . ".")'
}

TRINO_COORDINATOR=${TRINO_COORDINATOR:-$TRINO_HOST} TRINO_SCHEME=http TRINO_ALONE=true
parts=(plain)
if tls; then
    TRINO_SCHEME=https parts=(tls)
    secret TRINO_INTERNAL
    (umask 077 && mkdir -p "$etc" && cat "$TLS_KEY_FILE" "$TLS_CERT_FILE" >"$RUN_DIR/keystore.pem")
fi
if [ "$TRINO_COORDINATOR" = "$TRINO_HOST" ]; then
    ! profile ha || TRINO_ALONE=false parts+=(workers)
    parts+=(coordinator)
    if tls; then
        secret TRINO_PASSWORD
        hash=$(bcrypt <<<"$TRINO_PASSWORD")
        unset TRINO_PASSWORD
        [[ $hash == '$2y$'* ]] || die "perl here has no bcrypt"
        (umask 077 && echo "shudl:$hash" >"$etc/password.db")
        render "$here/config/password.properties.template" "$etc/password.properties"
        TRINO_SIGN_IN=PASSWORD
        parts+=(users)
        if signs_in; then
            TRINO_SIGN_IN=PASSWORD,OAUTH2
            parts+=(oidc)
            need OIDC_ISSUER OIDC_URL
            secret OIDC_TRINO
            cp "$here/config/rules.json" "$here/config/user-mapping.json" "$etc/"
            render "$here/config/access-control.properties.template" "$etc/access-control.properties"
        fi
    fi
else
    parts+=(worker)
fi
rm -rf "$etc/catalog"
render "$here/config/config.properties.template" "$etc/config.properties"
for part in "${parts[@]}"; do
    append "$here/config/$part.properties.template" "$etc/config.properties"
done
render "$here/config/log.properties.template" "$etc/log.properties"
LAKE_REF=$LAKE_BRANCH render "$here/config/lake.properties.template" "$etc/catalog/lake.properties"
LAKE_REF=$LAKE_PUBLISHED_REF render "$here/config/lake.properties.template" "$etc/catalog/published.properties"
for catalog in lake published; do
    [ -z "${LAKE_CATALOG_TOKEN:-}" ] || append "$here/config/token.properties.template" "$etc/catalog/$catalog.properties"
done
mkdir -p "$TRINO_DATA_DIR"
cd "$TRINO_DATA_DIR"
exec "$JAVA_HOME/bin/java" -server "-Xmx$TRINO_HEAP" -XX:+UseG1GC -XX:G1HeapRegionSize=16M -XX:+ExplicitGCInvokesConcurrent -XX:+ExitOnOutOfMemoryError \
    -XX:-OmitStackTraceInFastThrow -XX:ReservedCodeCacheSize=256M -XX:PerMethodRecompilationCutoff=10000 -XX:PerBytecodeRecompilationCutoff=10000 \
    -Djdk.attach.allowAttachSelf=true -Djdk.nio.maxCachedBufferSize=2000000 -Dfile.encoding=UTF-8 -XX:+EnableDynamicAgentLoading \
    --enable-native-access=ALL-UNNAMED --sun-misc-unsafe-memory-access=allow \
    "-Dnode.data-dir=$TRINO_DATA_DIR" "-Dconfig=$etc/config.properties" "-Dlog.levels-file=$etc/log.properties" \
    -cp "$TRINO_HOME/lib/*" io.trino.server.TrinoServer
