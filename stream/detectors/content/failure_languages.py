"""Phrases in which a short message reports a failure, in languages other than English."""

from __future__ import annotations

import re
from typing import Final

from stepstream.stream.detectors.content.signs import SignedPattern

_PHRASES: Final = SignedPattern(
    r"""
    # German
      \b(?:nicht|konnte[nt]?\ nicht\b[^.]{0,60})\ ?(?:gefunden|vorhanden|möglich|verfügbar|erlaubt|
        gültig|erreichbar|zulässig|unterstützt|angemeldet|berechtigt|existent)\b
      | \b(?:konnte|konnten|kann|können|wurde|wurden)\b[^.]{0,40}(?<!noch\ )\bnicht\b[^.]{0,40}
        (?:werden|t|en)\b | \bexistiert\ nicht\b | \bes\ gibt\ kein(?:e|en|er)?\b
      | \bkein(?:e|en|er)?\ \w+(?:\ \w+){0,3}\ (?:gefunden|vorhanden)\b
      | \b(?:fehlgeschlagen|gescheitert|ungültig\w*|verweigert|abgelehnt|zeitüberschreitung)\b
    # French
      | \b(?:introuvable|indisponible|refusée?s?|échoué\w*|échec|inexistante?)\b
      | \bn['’]existe\ pas\b | \bn['’]a\ pas\ (?:pu|été)\b | \bne\ peut\ pas\b
      | \b(?:est\ |^)impossible\ d(?:e\b|['’]) | \baucune?\b[^.]{0,40}\b(?:trouvée?|correspond)\b
      | \bnon\ (?:trouvée?|valide|autorisée?|disponible)\b | \bdélai\ (?:dépassé|d['’]attente)
    # Spanish
      | \bno\ (?:se\ )?(?:encontr\w+|pudo|ha\ podido|pudieron|puede\b|existe|está\ disponible|
        tiene\ permiso|fue\ posible|es\ posible|es\ válid\w)
      | \b(?:acceso\ )?denegad[oa]\b | \bfalló\b | \brechazad[oa]\b | \binválid[oa]s?\b
      | \btiempo\ de\ espera\b
    # Portuguese
      | \bnão\ (?:foi\ (?:possível|encontrad)|encontrad\w|existe|pode\b|pôde|é\ possível|
        está\ disponível|autorizad) | \bfalha\b | \bfalhou\b | \bnegad[oa]\b | \brecusad[oa]\b
    # Italian
      | \bnon\ (?:è\ stat[oa]\ (?:possibile|trovat)|è\ possibile|è\ riuscit|è\ disponibile|trovat\w|
        esiste|può\b|valid[oa]|autorizzat|disponibile)
      | \b(?:inesistente|impossibile|fallit[oa]|negato|rifiutat[oa])\b
    # Dutch
      | \bniet\ (?:gevonden|mogelijk|beschikbaar|toegestaan|geldig|bereikbaar)\b
      | \b(?:kan|kon|konden)\b[^.]{0,40}\bniet\b | \bbestaat\ niet\b
      | \b(?:mislukt|geweigerd|ongeldig\w*)\b
    # Swedish, Danish, Norwegian
      | \b(?:hittades\ inte|kunde\ inte|finns\ inte|misslyckades|ogiltig\w*|nekad\w*)\b
      | \b(?:ikke\ (?:fundet|funnet|mulig\w*|tilgængelig|tilgjengelig|tilladt)|kunne\ ikke|
        findes\ ikke|finnes\ ikke|mislykkedes|mislyktes|ugyldig\w*|nægtet|nektet)\b
    # Polish, Czech, Romanian, Hungarian, Finnish, Turkish, Indonesian, Vietnamese
      | \b(?:nie\ (?:znaleziono|można|udało|istnieje|jest\ możliw\w+)|odmowa|odrzucon\w+|
        nieprawidłow\w+|niepowodzeni\w+)\b
      | \b(?:nenalezen\w*|nelze|nepodařilo|neexistuje|neplatn\w+|zamítnut\w*)\b
      | \bnu\ (?:a\ fost|există|se\ poate|s-a\ putut|am\ găsit) | \beșuat\b
      | \b(?:nem\ (?:található|lehet|sikerült|létezik)|sikertelen|érvénytelen)\b
      | \b(?:ei\ (?:löyd\w+|löyt\w+|voi\b|onnistu\w*|ole\ olemassa)|epäonnistui|virheellinen)\b
      | \b(?:bulunamadı|başarısız|geçersiz|reddedildi|yapılamadı|mevcut\ değil)\b
      | \b(?:tidak\ (?:ditemukan|dapat|bisa|valid|tersedia|ada)|gagal|ditolak)\b
      | (?:không\ (?:tìm\ thấy|thể|tồn\ tại|hợp\ lệ)|thất\ bại)
    # Russian, Ukrainian
      | \b(?:не\ (?:найден\w*|удалось|существует|удаётся|может|знайдено|вдалося|існує)|
        невозможно|отказано|недопустим\w+|неверн\w+|запрещ\w+|неможливо)
    # Chinese, Japanese, Korean
      | 失败|失敗|不存在|无法|無法|找不到|未找到|无效|無效|被拒绝|被拒絕|超时|逾時|不支持
      | 没有权限|权限不足
      | 見つかりません|見つかりませんでした|できません|存在しません|無効です|拒否され|タイムアウト
      | 실패|찾을\ 수\ 없|할\ 수\ 없|존재하지\ 않|잘못된|거부되|거부됨
    # Arabic, Hindi, Greek, Hebrew
      | تعذر|فشل|غير\ موجود|غير\ صالح | विफल|नहीं\ मिला|अमान्य | δεν\ (?:βρέθηκε|υπάρχει)|απέτυχε
      | לא\ נמצא|נכשל
    """,
    re.IGNORECASE | re.VERBOSE,
)
# One of these words, or a letter beyond ASCII, is in every message that can match; English ones are
# left out before the search at the cost of one set operation.
_SIGNS: Final = SignedPattern(
    r"\b(?:nicht|kein\w*|verweigert|abgelehnt|fehlgeschlagen|gescheitert|introuvable|"
    r"indisponible|inexistant\w*|impossible\ d|ne\ peut|non\ \w|no\ se|no\ (?:pudo|puede|existe|es|"
    r"fue|ha|tiene)|denegad\w|rechazad\w|tiempo|falha|falhou|negad\w|recusad\w|inesistente|"
    r"impossibile|fallit\w|negato|rifiutat\w|niet|mislukt|geweigerd|ongeldig\w*|hittades|kunde\ "
    r"inte|finns\ inte|misslyckades|ogiltig\w*|nekad\w*|ikke|mislykkedes|mislyktes|ugyldig\w*|"
    r"nektet|nie|odmowa|odrzucon\w+|nelze|neexistuje|neplatn\w+|nu\ (?:a|se|am|s)|nem|sikertelen|"
    r"ei|virheellinen|reddedildi|tidak|gagal|ditolak)\b",
    re.IGNORECASE,
)


def in_another_language(text: str) -> bool:
    """Whether a short text reports a failure in one of some thirty languages."""
    return (not text.isascii() or _SIGNS.found_in(text)) and _PHRASES.found_in(text)
