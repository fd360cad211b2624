# All images of ShuDL. `make images` builds them; one of them: `make images IMAGES=kafka`.
# Image <name> is made by docker/services/<name>/Dockerfile, with the repo as context.

variable "VERSION" { # as in docker/VERSION
  default = "0.1.0"
}

variable "BUILD_CA_FILE" { # PEM file that downloads trust while building, where a proxy has an authority of its own
  default = ""
}

target "settings" {
  context = "."
  secret  = BUILD_CA_FILE == "" ? [] : ["id=build_ca,src=${BUILD_CA_FILE}"]
}

group "default" {
  targets = ["core", "ha", "access", "monitoring"]
}

# From the source databases to what is served, and Airflow.
group "core" {
  targets = [
    "airflow", "clickhouse", "connect", "etcd", "flink", "haproxy", "kafka", "minio", "nessie", "patroni", "postgres",
    "registry", "spark", "trino",
  ]
}

# What the profile ha has besides more of the same.
group "ha" {
  targets = ["valkey"]
}

group "access" {
  targets = ["keycloak"]
}

group "monitoring" {
  targets = ["alertmanager", "prometheus"]
}

# Of which all others are made.
target "base" {
  inherits   = ["settings"]
  dockerfile = "docker/services/common/Dockerfile"
  tags       = ["shudl/base:${VERSION}"]
}

# Every environment and engine, as the locks name them; the images below copy what they run.
target "engines" {
  inherits   = ["settings"]
  dockerfile = "docker/services/engines/Dockerfile"
  tags       = ["shudl/engines:${VERSION}"]
}

target "runs-engines" {
  matrix = {
    image = ["airflow", "clickhouse", "connect", "flink", "kafka", "nessie", "registry", "spark", "trino"]
  }
  name       = image
  inherits   = ["settings"]
  dockerfile = "docker/services/${image}/Dockerfile"
  contexts   = { base = "target:base", engines = "target:engines" }
  tags       = ["shudl/${image}:${VERSION}"]
}

target "runs-others" {
  matrix     = { image = ["alertmanager", "etcd", "haproxy", "keycloak", "minio", "patroni", "postgres", "prometheus", "valkey"] }
  name       = image
  inherits   = ["settings"]
  dockerfile = "docker/services/${image}/Dockerfile"
  contexts   = { base = "target:base" }
  tags       = ["shudl/${image}:${VERSION}"]
}
