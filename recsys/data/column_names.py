"""Knows what people call the columns of their tables.

The names are those of common exports in English and German, French, Spanish, Italian, Dutch and
Portuguese. A name is compared without case, accents, spaces and signs.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from difflib import SequenceMatcher
from functools import cache

NAMES: dict[str, tuple[str, ...]] = {
    "user_id": (
        "user_id", "user", "uid", "userno", "user_number", "username", "user_name", "account",
        "account_id", "customer", "customer_id", "customerno", "customer_no", "customer_number",
        "cust_id", "custno", "client", "client_id", "clientid", "visitorid", "visitor_id",
        "visitor", "member_id", "member", "buyer_id", "shopper_id", "person_id", "reviewer_id",
        "reviewerid", "subscriber_id", "household_key", "household_id", "email",
        "customer_email", "msno", "anonymous_id", "distinct_id", "session_id",
        "sessionid", "session", "kunde", "kundennummer", "kundennr", "kunden_id", "kunden_nr",
        "kundeid", "kdnr", "benutzer", "benutzer_id", "nutzer_id", "nutzer", "utilisateur",
        "id_client",
        "numero_client", "no_client", "usuario", "id_usuario", "cliente", "id_cliente",
        "codice_cliente", "utente", "klant", "klant_id", "klantnummer", "gebruiker", "u",
    ),
    "item_id": (
        "item_id", "item", "iid", "itemno", "item_no", "item_number", "itemcode", "sku", "sku_id",
        "asin", "parent_asin", "isbn", "ean", "gtin", "upc", "product", "product_id", "productid",
        "product_no", "productno", "product_number", "product_code", "prod_id", "stockcode",
        "stock_code", "article", "article_id", "article_no", "articleno", "article_number",
        "variant_id", "listing_id", "offer_id", "content_id", "video_id", "track", "track_id",
        "song", "song_id", "artist", "artist_id", "movie_id", "movieid", "movie", "film_id",
        "book_id", "news_id", "recipe_id", "business_id", "venue_id", "gmap_id", "artikel",
        "artikelnummer",
        "artikelnr", "artnr", "artikel_nr", "artikel_id", "produkt", "produkt_id", "produktnummer",
        "produit", "id_produit", "code_article", "ref_article", "producto", "id_producto",
        "articulo", "prodotto", "id_prodotto", "codice_articolo", "produto", "id_produto", "i",
    ),
    "timestamp": (
        "timestamp", "time", "ts", "date", "datetime", "date_time", "event_time", "eventtime",
        "event_date", "event_timestamp", "order_date", "orderdate", "order_time", "ordered_at",
        "order_timestamp", "purchase_date", "purchased_at", "purchase_time", "transaction_date",
        "transaction_time", "t_dat", "invoice_date", "invoicedate", "created", "created_at",
        "createdat", "creation_date", "rated_at", "rating_date", "review_date", "reviewed_at",
        "unix_review_time", "unixreviewtime", "unix_time", "unixtime", "unix_timestamp", "epoch",
        "occurred_at", "updated_at", "played_at", "listened_at", "viewed_at", "visit_date", "day",
        "datum", "bestelldatum", "zeit", "zeitpunkt", "zeitstempel", "kaufdatum",
        "rechnungsdatum", "date_commande", "date_achat", "horodatage", "fecha", "fecha_pedido",
        "data", "data_ordine", "data_pedido", "besteldatum", "tijd",
    ),
    "event_type": (
        "event_type", "eventtype", "event", "event_name", "action", "action_type", "activity",
        "activity_type", "behavior", "behaviour", "behavior_type", "behaviour_type",
        "interaction", "interaction_type", "feedback_type", "transaction_type", "type", "kind",
        "verb", "ereignis", "aktion", "vorgang", "evenement", "evento", "accion", "azione",
    ),
    "rating": (
        "rating", "ratings", "stars", "star_rating", "score", "overall", "note", "review_score",
        "user_rating", "like", "liked", "thumbs", "feedback", "grade", "bewertung", "sterne",
        "evaluation", "calificacion", "valoracion", "puntuacion", "valutazione", "voto",
        "avaliacao", "nota", "waardering",
    ),
    "weight": (
        "weight", "quantity", "qty", "count", "counts", "amount", "units", "plays", "play_count",
        "playcount", "listen_count", "times", "n", "number", "hours", "playtime", "value",
        "strength", "menge", "anzahl", "stueck", "stuckzahl", "quantite", "qte", "cantidad",
        "unidades", "quantita", "quantidade", "aantal", "hoeveelheid",
    ),
    "title": (
        "title", "name", "product_name", "productname", "item_name", "itemname", "product_title",
        "product", "prod_name", "movie_title", "track_name", "song_name", "article_name", "label",
        "titel", "bezeichnung", "produktname", "artikelname", "artikelbezeichnung", "titre",
        "nom", "nom_produit", "libelle", "designation", "titulo", "nombre", "titolo", "nome",
        "naam", "productnaam", "description", "beschreibung",
    ),
    "categories": (
        "categories", "category", "genres", "genre", "tags", "tag", "department", "section",
        "product_category", "category_name", "category_code", "main_category", "product_type",
        "product_type_name", "product_group", "product_group_name", "department_name", "aisle",
        "group", "collection", "topic", "topics", "class", "subcategory", "category_id",
        "kategorie", "kategorien", "warengruppe", "abteilung", "categorie", "rayon", "rubrique",
        "categoria", "departamento", "reparto", "categorieen", "afdeling",
    ),
    "year": (
        "year", "release_year", "launch_year", "launchyear", "releaseyear", "year_released",
        "published_year", "publication_year", "year_of_publication", "model_year", "jahr",
        "erscheinungsjahr", "baujahr", "annee", "ano", "anno", "jaar",
    ),
}  # fmt: skip
"""What others call each of our columns, the likeliest first."""

ALIASES = {
    "title": ("name", "product_name", "item_name", "product_title", "movie_title"),
    "categories": ("category", "genres", "genre", "tags", "tag", "department"),
}
"""Names of an items table that are taken for ours without a mapping, with a note."""


def _words_of(text: str) -> frozenset[str]:
    return frozenset(text.split())


_WORDS = {
    "user_id": _words_of(
        "user users userid customer customers cust client visitor member account buyer shopper "
        "reviewer anonymous device cookie profile "
        "subscriber viewer listener reader household person email player passenger patient student "
        "kunde kunden benutzer nutzer usuario cliente utente klant utilisateur"
    ),
    "item_id": _words_of(
        "item items itemid lineitem sku asin isbn ean gtin upc product products prod article "
        "stockcode track song artist movie film book video game app content recipe news listing "
        "offer business venue poi place course podcast restaurant hotel artikel produkt produit "
        "producto prodotto produto articulo"
    ),
    "timestamp": _words_of("date datetime time timestamp ts when at created datum zeit fecha tijd"),
}
"""Words in a name that speak for a required column."""

DATE_PARTS = {
    "year": _words_of("year jahr annee ano anno jaar"),
    "month": _words_of("month monat mois mes mese maand"),
    "day": _words_of("day tag jour dia giorno dag"),
}
"""Words in the names of the columns of a date in several columns."""

_ID_WORDS = _words_of("id ids uid uuid guid no nr num number code key sku pseudo hash ref email")
_OTHER_WORDS = _words_of(
    "name title price cost total count qty quantity category type group desc description brand age "
    "url link image status country city gender rank position days hour dow order prior since"
)
"""Words in a name that speak of something else about a user, an item or a time."""

_LETTERS = str.maketrans({"ß": "ss", "æ": "ae", "ø": "o", "đ": "d", "ł": "l"})


def plain(name: str) -> str:
    """A name without case, accents, spaces and signs."""
    decomposed = unicodedata.normalize("NFKD", name.casefold().translate(_LETTERS))
    return re.sub(r"[^a-z0-9]", "", decomposed)


_PLAIN = {ours: tuple(plain(name) for name in names) for ours, names in NAMES.items()}


def words(name: str) -> frozenset[str]:
    """The words of a name: customerEmail and customer_email have the same two."""
    spaced = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", " ", name)
    return frozenset(filter(None, map(plain, re.split(r"[^\w]|_", spaced))))


@cache
def closeness(name: str, ours: str) -> float:
    """How much a name sounds like one of our columns, from 0 to 1.

    A known name counts from 0.9 to 1, the likelier the more. One with words of it counts 0.85,
    0.75 without a word for an id, and 0.66 with a word for something else: a track's name may be
    all there is of it. Any other is as alike as its letters, up to 0.8, or 0.6 with such a word.
    A field in an object, such as properties.sku, may sound by its last part, a little less.
    """
    _, dot, last = name.rpartition(".")
    return max(_closeness(name, ours), closeness(last, ours) - _NESTED if dot else 0.0)


_NESTED = 0.05
"""A field in an object comes after a column of the same name."""


def _closeness(name: str, ours: str) -> float:
    bare, known = plain(name), _PLAIN.get(ours, (plain(ours),))
    if bare in known:
        return 1 - 0.1 * known.index(bare) / len(known)
    if not bare:
        return 0.0
    own = words(name)
    is_other = bool(own & _OTHER_WORDS)
    if own & _WORDS.get(ours, frozenset()):
        named = 0.85 if ours == "timestamp" or own & _ID_WORDS else 0.75
        return 0.66 if is_other else named
    alike = 0.8 * _likeness(bare, known)
    return min(alike, 0.6) if is_other else alike


def _likeness(bare: str, known: Sequence[str]) -> float:
    """How alike the letters of a name are to the nearest of others, from 0 to 1."""
    best = 0.0
    for other in known:
        most = 2 * min(len(bare), len(other)) / (len(bare) + len(other))  # it is quick to find
        if most > best:
            best = max(best, SequenceMatcher(None, bare, other).ratio())
    return best


def nearest(ours: str, names: Sequence[str], n: int = 3) -> list[str]:
    """The names most like one of our columns, the nearest first."""
    ranked = sorted(names, key=lambda name: -closeness(name, ours))  # stable: as in the file
    return ranked[:n]


def alias_of(ours: str, names: Sequence[str]) -> str | None:
    """The first of a table's names that is taken for one of our columns; None where none is."""
    by_plain = {plain(name): name for name in reversed(names)}
    found = (by_plain.get(plain(alias)) for alias in ALIASES.get(ours, ()))
    return next((name for name in found if name is not None), None)
