# syntax=docker/dockerfile:1

# The image: one static program as a user without rights, and the compiled form of its built-in
# serializers. Nothing else is in it, not even a shell.
#
#   docker build -t torpor .
#   docker run --rm -p 127.0.0.1:4566:4566 -v torpor-data:/var/lib/torpor -e TORPOR_CONTROL=any torpor
#
# With TORPOR_CONTROL=any whoever reaches the published port, which is this machine, may save, load and reset
# state; with -e TORPOR_API_KEY=… in its place, who sends that key. With neither, nobody outside of the container.

FROM golang:1.26-bookworm AS build
ENV CGO_ENABLED=0 GOTOOLCHAIN=local
WORKDIR /src
# Modules first: they change less often than the source.
COPY go.mod go.sum ./
RUN go mod download
COPY . .
RUN go build -trimpath -ldflags="-s -w" -o /image/root/usr/local/bin/torpor .
# Folders with the modes they have in the image. /tmp is for large form uploads.
RUN mkdir -p /image/root/etc /image/user/var/lib /image/user/var/cache \
	&& mkdir -m 0700 /image/user/var/lib/torpor /image/user/var/cache/torpor \
	&& mkdir -m 1777 /image/root/tmp \
	&& echo 'torpor:x:65532:65532:Torpor:/var/lib/torpor:/sbin/nologin' >/image/root/etc/passwd \
	&& echo 'torpor:x:65532:' >/image/root/etc/group
# Compiled here, so that the first start in a container only loads it.
RUN /image/root/usr/local/bin/torpor module warm --cache /image/user/var/cache/torpor

FROM scratch
COPY --from=build /image/root/ /
# A new volume takes over owner and mode of /var/lib/torpor.
COPY --from=build --chown=65532:65532 /image/user/ /

ENV TORPOR_LISTEN=0.0.0.0:4566 \
	TORPOR_DATA=/var/lib/torpor \
	TORPOR_CACHE=/var/cache/torpor
USER 65532:65532
WORKDIR /var/lib/torpor
VOLUME /var/lib/torpor
EXPOSE 4566
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=5s --timeout=6s --start-period=30s --retries=3 CMD ["/usr/local/bin/torpor", "health"]
ENTRYPOINT ["/usr/local/bin/torpor"]
CMD ["serve"]

ARG VERSION=dev
ARG REVISION=unknown
LABEL org.opencontainers.image.title="Torpor" \
	org.opencontainers.image.description="Pauses and resumes the state of services" \
	org.opencontainers.image.source="https://github.com/torpor-run/torpor" \
	org.opencontainers.image.licenses="Apache-2.0" \
	org.opencontainers.image.version="${VERSION}" \
	org.opencontainers.image.revision="${REVISION}"
