// Makes the API reference of the README from the types and JSDoc of what the package exports.

import ts from 'typescript';

/**
 * @param {string} entry - path of the TypeScript file whose exports are the API
 * @returns {Reference}
 */
export function readApi(entry, configFile) {
  const { config, error } = ts.readConfigFile(configFile, ts.sys.readFile);
  if (error) throw new Error(ts.flattenDiagnosticMessageText(error.messageText, '\n'));
  const { options } = ts.convertCompilerOptionsFromJson(config.compilerOptions, '.');
  const program = ts.createProgram([entry], { ...options, noEmit: true });
  const checker = program.getTypeChecker();
  const source = program.getSourceFile(entry);
  const exports = checker
    .getExportsOfModule(checker.getSymbolAtLocation(source))
    .map((symbol) => (symbol.flags & ts.SymbolFlags.Alias ? checker.getAliasedSymbol(symbol) : symbol))
    .filter((symbol) => !hasTag(symbol, 'internal'));
  return new Reference(checker, exports);
}

/** title, what belongs to it, in which order */
const GROUPS = [
  ['Functions', (symbol) => symbol.flags & ts.SymbolFlags.Function, asExported],
  ['Classes', (symbol) => symbol.flags & ts.SymbolFlags.Class, asExported],
  ['Types', (symbol) => symbol.flags & (ts.SymbolFlags.Interface | ts.SymbolFlags.TypeAlias), asDeclared],
];

function asExported(symbols) {
  return symbols;
}

/** Re-exports are sorted by name; the files that declare them tell a story. The file with the most comes first. */
function asDeclared(symbols) {
  const sizeOfFile = (symbol) => symbols.filter((other) => fileOf(other) === fileOf(symbol)).length;
  return [...symbols].sort(
    (a, b) =>
      sizeOfFile(b) - sizeOfFile(a) ||
      fileOf(a).localeCompare(fileOf(b)) ||
      a.declarations[0].pos - b.declarations[0].pos,
  );
}

function fileOf(symbol) {
  return symbol.declarations[0].getSourceFile().fileName;
}

class Reference {
  #checker;
  #exports;
  /** group title → its symbols */
  #groups;
  /** symbol → the anchor of its heading */
  #anchors = new Map();

  constructor(checker, exports) {
    this.#checker = checker;
    this.#exports = exports;
    this.#groups = GROUPS.map(([title, belongs, order]) => [title, order(exports.filter(belongs))]);
    for (const symbol of this.#groups.flatMap(([, symbols]) => symbols))
      this.#anchors.set(symbol, this.#freeAnchor(symbol));
  }

  /** A second heading of the same letters gets a number on the page: `stats` and `Stats`. */
  #freeAnchor({ name }) {
    const anchor = name.toLowerCase();
    const earlier = [...this.#anchors.keys()].filter((symbol) => symbol.name.toLowerCase() === anchor).length;
    return earlier === 0 ? anchor : `${anchor}-${earlier}`;
  }

  /** The whole reference, without the entries named. Constants stand in tables of their own. */
  markdown({ without = [] } = {}) {
    // What has no heading cannot be linked to.
    for (const name of without) this.#anchors.delete(this.#find(name));
    const sections = [];
    for (const [title, symbols] of this.#groups) {
      const members = symbols.filter((symbol) => !without.includes(symbol.name));
      if (members.length === 0) continue;
      sections.push(
        `### ${title}`,
        members.map((symbol) => `[\`${symbol.name}\`](#${this.#anchors.get(symbol)})`).join(' · '),
      );
      for (const symbol of members) sections.push(...this.#entry(symbol));
    }
    return sections.join('\n\n');
  }

  /** The properties of one interface as a table. */
  propertyTable(interfaceName) {
    return this.#propertyTable([...this.#find(interfaceName).members.values()]);
  }

  /** The entries of a constant object of strings, in its order. */
  constantTable(constantName, headings) {
    const symbol = this.#find(constantName);
    const rows = this.#checker
      .getTypeOfSymbol(symbol)
      .getProperties()
      .map((property) => {
        const type = this.#checker.getTypeOfSymbol(property);
        if (!type.isStringLiteral()) throw new Error(`${constantName}.${property.name} is not a literal`);
        return [code(property.name), cell(this.#link(type.value))];
      });
    return table(headings, rows);
  }

  #find(name) {
    const symbol = this.#exports.find((candidate) => candidate.name === name);
    if (!symbol) throw new Error(`the package exports no ${name}`);
    return symbol;
  }

  #entry(symbol) {
    const head = isPlainShape(symbol) ? [] : [fence(signature(symbol))];
    return [`#### \`${symbol.name}\``, ...head, ...this.#body(symbol), ...this.#members(symbol)];
  }

  /** Text, parameters, result, errors and examples of a symbol or a member. */
  #body(symbol) {
    const checker = this.#checker;
    const parameters = tags(symbol, 'param', checker).map((text) => {
      const [, name, meaning] = /^([\w.[\]]+)\s*-?\s*([\s\S]*)$/.exec(text);
      return `- \`${name}\`: ${oneLine(this.#link(meaning))}`;
    });
    const returns = tags(symbol, 'returns', checker).map((text) => `- Returns ${oneLine(this.#link(text))}`);
    const throws = throwsTexts(symbol).map((text) => `- Throws ${oneLine(this.#link(text))}`);
    const examples = tags(symbol, 'example', checker).map((text) =>
      text.includes('```') ? text.trim() : fence(text, 'js'),
    );
    const details = [...parameters, ...returns, ...throws].join('\n');
    return [this.#text(symbol), details, ...examples].filter((part) => part !== '');
  }

  #members(symbol) {
    const members = [...(symbol.members?.values() ?? [])].filter(isPublicMember);
    if (members.length === 0 || isMap(symbol) || !(symbol.flags & (ts.SymbolFlags.Interface | ts.SymbolFlags.Class))) {
      return [];
    }
    if (members.every((member) => member.flags & ts.SymbolFlags.Property && !isFunction(member))) {
      return [this.#propertyTable(members)];
    }
    return members.flatMap((member) => [`**\`${oneLine(memberSignature(member))}\`**`, ...this.#body(member)]);
  }

  #propertyTable(members) {
    const defaultOf = (member) => tags(member, 'defaultValue', this.#checker).join(' ').trim();
    const withDefaults = members.some((member) => defaultOf(member) !== '');
    const rows = members.map((member) => {
      const value = defaultOf(member);
      return [
        code(isOptional(member) ? `${member.name}?` : member.name),
        code(typeText(member)),
        ...(withDefaults ? [value && code(oneLine(value))] : []),
        cell(this.#text(member)),
      ];
    });
    return table(['Name', 'Type', ...(withDefaults ? ['Default'] : []), 'Meaning'], rows);
  }

  #text(symbol) {
    const text = ts.displayPartsToString(symbol.getDocumentationComment(this.#checker)).trim();
    if (text === '') throw new Error(`${symbol.name} has no documentation`);
    return this.#link(text);
  }

  /** `{@link name}` becomes a link where the name has an entry, else code. */
  #link(text) {
    return text.replace(/\{@link(?:code|plain)?\s+([^\s|}]+)(?:\s*\|?\s*([^}]*))?\}/g, (_all, target, label) => {
      if (/^https?:/.test(target)) return `[${label || target}](${target})`;
      const shown = label || `\`${target}\``;
      const [owner] = target.split('.');
      const entry = this.#exports.find((symbol) => symbol.name === owner);
      return this.#anchors.has(entry) ? `[${shown}](#${this.#anchors.get(entry)})` : shown;
    });
  }
}

/** The declaration as the source writes it, without a body. */
function signature(symbol) {
  const declarations = symbol.declarations.filter(
    (node) => !ts.isFunctionDeclaration(node) || isPublicOverload(node, symbol),
  );
  return declarations
    .map((node) => {
      if (ts.isFunctionDeclaration(node)) return functionHead(node);
      if (!isMap(symbol) && (ts.isInterfaceDeclaration(node) || ts.isClassDeclaration(node))) return classHead(node);
      return node
        .getText()
        .replace(/^export\s+/, '')
        .replace(/^\s*\/\/.*\n/gm, '')
        .replace(/(?<![;}])$/, ';');
    })
    .join('\n');
}

/** An interface of which the heading and the members tell everything. */
function isPlainShape(symbol) {
  const [node] = symbol.declarations;
  return ts.isInterfaceDeclaration(node) && !node.heritageClauses && !node.typeParameters && !isMap(symbol);
}

/** A shape with keys of any name, which its declaration tells best. */
function isMap(symbol) {
  return symbol.members?.has(ts.InternalSymbolName.Index);
}

/** An implementation below overloads is not callable as it is written. */
function isPublicOverload(node, symbol) {
  return symbol.declarations.length === 1 || !node.body;
}

function functionHead(node) {
  const text = node.getSourceFile().text.slice(node.getStart(), node.body ? node.body.pos : node.end);
  return `${text.replace(/^export\s+(async\s+)?/, '').replace(/;?\s*$/, '')};`;
}

function classHead(node) {
  const keyword = ts.isClassDeclaration(node) ? 'class' : 'interface';
  const parameters = node.typeParameters ? `<${node.typeParameters.map((item) => item.getText()).join(', ')}>` : '';
  const heritage = (node.heritageClauses ?? []).map((clause) => ` ${clause.getText()}`).join('');
  return `${keyword} ${node.name.text}${parameters}${heritage}`;
}

function memberSignature(member) {
  const [node] = member.declarations;
  const text =
    ts.isMethodDeclaration(node) && node.body
      ? node.getSourceFile().text.slice(node.getStart(), node.body.pos)
      : node.getText();
  return text.trim().replace(/;$/, '');
}

function isPublicMember(member) {
  const [node] = member.declarations;
  if (ts.isConstructorDeclaration(node) || hasTag(member, 'internal')) return false;
  if (node.name && ts.isPrivateIdentifier(node.name)) return false;
  return !(ts.getCombinedModifierFlags(node) & (ts.ModifierFlags.Private | ts.ModifierFlags.Protected));
}

function isFunction(member) {
  const [node] = member.declarations;
  return ts.isMethodSignature(node) || ts.isMethodDeclaration(node) || (node.type && ts.isFunctionTypeNode(node.type));
}

function isOptional(member) {
  return Boolean(member.flags & ts.SymbolFlags.Optional);
}

function typeText(member) {
  const [node] = member.declarations;
  if (!node.type) throw new Error(`${member.name} has no type annotation`);
  return oneLine(node.type.getText());
}

function hasTag(symbol, name) {
  return symbol.getJsDocTags().some((tag) => tag.name === name);
}

function tags(symbol, name, checker) {
  return symbol
    .getJsDocTags(checker)
    .filter((tag) => tag.name === name)
    .map((tag) => ts.displayPartsToString(tag.text));
}

/** TypeScript takes a leading `{@link …}` for a type and loses the text, so these are read as they are written. */
function throwsTexts(symbol) {
  return symbol.declarations
    .flatMap((node) => ts.getJSDocCommentsAndTags(node).filter(ts.isJSDoc))
    .flatMap((comment) => [...comment.getText().matchAll(/@throws\s+([\s\S]*?)(?=\n\s*\*\s*@|\s*\*\/)/g)])
    .map(([, text]) => text.replace(/\s*\n[\s*]*/g, ' '));
}

/** @returns a markdown table; cells must be free of line breaks */
export function table(headings, rows) {
  const lines = [headings, headings.map(() => '---'), ...rows];
  return lines.map((cells) => `| ${cells.join(' | ')} |`).join('\n');
}

/** Inline code that may stand in a table cell. */
export function code(text) {
  return `\`${text.replaceAll('|', '\\|')}\``;
}

/** Text that may stand in a table cell. */
export function cell(text) {
  return oneLine(text).replace(/(?<!\\)\|/g, '\\|');
}

function oneLine(text) {
  return text.trim().replace(/\s*\n\s*/g, ' ');
}

function fence(text, language = 'ts') {
  return `\`\`\`${language}\n${text.trim()}\n\`\`\``;
}
