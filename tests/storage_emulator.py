"""Program PORT BUCKET: gcp-storage-emulator with what it lacks, and Orbax's driver or gcsfs needs.

That is the generation of an object in the headers of a download, conditions on generations, which Orbax's
driver writes with, and the request that renames an object.
"""

import sys
from http import HTTPStatus

from gcp_storage_emulator import server
from gcp_storage_emulator.exceptions import NotFound
from gcp_storage_emulator.handlers import objects

RENAME = r"^/storage/v1/b/(?P<bucket_name>[-.\w]+)/o/(?P<object_id>.*)/moveTo/o/(?P<to>.*)$"


def generation(request, storage, name):
    try:
        return storage.get_file_obj(request.params["bucket_name"], name)["generation"]
    except NotFound:
        return "0"


def conditional(handle, name_of):
    """A handler that does nothing unless the object's generation fulfills the request's conditions."""

    def handle_if(request, response, storage, *args, **kwargs):
        found = generation(request, storage, name_of(request))
        if request.query.get("ifGenerationMatch", [found]) != [found]:
            response.status = HTTPStatus.PRECONDITION_FAILED
        elif request.query.get("ifGenerationNotMatch") == [found]:
            response.status = HTTPStatus.NOT_MODIFIED
        else:
            handle(request, response, storage, *args, **kwargs)
            response["x-goog-generation"] = found

    return handle_if


def in_path(request):
    return request.params["object_id"]


def in_body(request):
    if "name" in request.query:
        return request.query["name"][0]
    return (request.data.get("meta") or request.data)["name"]


def rename(request, response, storage):
    bucket, source = request.params["bucket_name"], request.params["object_id"]
    try:
        made = objects._copy(
            request.base_url, storage, bucket, source, bucket, request.params["to"]
        )
        storage.delete_file(bucket, source)
        response.json(made)
    except NotFound:
        response.status = HTTPStatus.NOT_FOUND


if __name__ == "__main__":
    port, bucket = sys.argv[1:]
    changed = {
        objects.get: conditional(objects.get, in_path),
        objects.download: conditional(objects.download, in_path),
        objects.delete: conditional(objects.delete, in_path),
        objects.insert: conditional(objects.insert, in_body),
    }
    kept = [
        (route, {method: changed.get(handle, handle) for method, handle in methods.items()})
        for route, methods in server.HANDLERS
    ]
    server.HANDLERS = ((RENAME, {server.POST: rename}), *kept)
    server.create_server("127.0.0.1", int(port), in_memory=True, default_bucket=bucket).run()
